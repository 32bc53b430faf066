/* Packed networks of ReLeQ on integer kernels. `releq export --form packed --activation-bits 8` writes them. */
#ifndef RELEQ_H
#define RELEQ_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A network that is ready to run. One thread at a time may use it. */
typedef struct releq_model releq_model;

/* Reads a packed file, whose path is in UTF-8, and makes it ready to run with this many threads for each layer; 0 is one
 * thread. NULL if that fails. */
releq_model *releq_load(const char *path, size_t threads);

/* Computes the outputs for one image: [channels][height][width] numbers, normalized as in training. 0 on success; -1 if
 * something failed, such as another number of values or of outputs than the network has, and `outputs` is as it was. */
int releq_run(releq_model *model, const float *image, size_t image_len, float *outputs, size_t outputs_len);

/* Frees a network; NULL is allowed. */
void releq_free(releq_model *model);

/* What failed last in this thread; empty if nothing did. Valid until the next call of another function in this thread. */
const char *releq_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
