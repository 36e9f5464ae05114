"""The two containers of grouped images, with the same constructor: eager and lazy."""
