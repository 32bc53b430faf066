/* Classifies one image: numbers in single precision, normalized, in a file.
 *
 *     cc classify.c -I ../include -L TARGET/release -l releq_c -o classify
 *     ./classify lenet.safetensors digit.f32 784 10
 */
#include <stdio.h>
#include <stdlib.h>

#include "releq.h"

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL IMAGE VALUES CLASSES\n", argv[0]);
        return 2;
    }
    size_t values = strtoul(argv[3], NULL, 10), classes = strtoul(argv[4], NULL, 10), best = 0;
    float *image = calloc(values + 1, sizeof *image), *outputs = calloc(classes + 1, sizeof *outputs);
    FILE *file = fopen(argv[2], "rb");
    if (!file || !image || !outputs || fread(image, sizeof *image, values, file) != values) {
        fprintf(stderr, "cannot read %zu values from %s\n", values, argv[2]);
        return 1;
    }
    fclose(file);
    releq_model *model = releq_load(argv[1], 1);
    if (!model || releq_run(model, image, values, outputs, classes) != 0) {
        fprintf(stderr, "%s\n", releq_last_error());
        return 1;
    }
    for (size_t class = 1; class < classes; class++)
        if (outputs[class] > outputs[best]) best = class;
    printf("class %zu\n", best);
    releq_free(model);
    free(image), free(outputs);
    return 0;
}
