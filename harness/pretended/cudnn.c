/* The part of libcudnn.so.9 that only tells its version; a handle cannot be had. */
enum { NOT_INITIALIZED = 1001, SUCCESS = 0 }; /* cudnnStatus_t of cuDNN 9 */
enum { MAJOR = 9, MINOR = 3, PATCH = 0 };      /* TensorFlow 2.19 to 2.21 ask for cuDNN 9.3 or later */
#define VISIBLE __attribute__((visibility("default")))
VISIBLE unsigned long cudnnGetVersion(void) { return MAJOR * 10000 + MINOR * 100 + PATCH; }
VISIBLE unsigned long cudnnGetCudartVersion(void) { return 12050; }
VISIBLE int cudnnGetProperty(int which, int *value) {
    *value = which == 0 ? MAJOR : which == 1 ? MINOR : PATCH;
    return SUCCESS;
}
VISIBLE int cudnnCreate(void **handle) {
    *handle = 0;
    return NOT_INITIALIZED;
}
VISIBLE const char *cudnnGetErrorString(int status) { return status == SUCCESS ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_NOT_INITIALIZED"; }
