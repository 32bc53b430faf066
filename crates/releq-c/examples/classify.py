"""Classifies one image with the shared library, as classify.c does.

python classify.py libreleq_c.so lenet.safetensors digit.f32 10
"""

import array
import ctypes
import sys

library, path, image, classes = *sys.argv[1:4], int(sys.argv[4])
releq = ctypes.CDLL(library)
floats = ctypes.POINTER(ctypes.c_float)
releq.releq_load.argtypes, releq.releq_load.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_void_p
releq.releq_run.argtypes = [ctypes.c_void_p, floats, ctypes.c_size_t, floats, ctypes.c_size_t]
releq.releq_free.argtypes, releq.releq_free.restype = [ctypes.c_void_p], None
releq.releq_last_error.restype = ctypes.c_char_p

values = array.array("f", open(image, "rb").read())
pixels, outputs = (ctypes.c_float * len(values))(*values), (ctypes.c_float * classes)()
model = releq.releq_load(path.encode(), 1)
if not model or releq.releq_run(model, pixels, len(pixels), outputs, classes):
    sys.exit(releq.releq_last_error().decode())
print("class", max(range(classes), key=lambda number: outputs[number]))
releq.releq_free(model)
