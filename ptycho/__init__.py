"""Ptychography scans fed to TensorFlow without holding them in memory.

``ptycho.scan.Scan`` opens a measured scan, ``ptycho.loader`` makes containers of it;
``ptycho.raw_data`` is for those who have their scans as PtychoPINN's ``RawData``. Importing this
package is light: TensorFlow comes with ``loader``, and with the ``device``, ``pipeline``,
``containers`` and ``compat`` that it is made of; Keras too with ``model``, which trains on the
batches of a container, ``layers``, and ``reconstruct``, which gives the object of a whole scan.
"""
