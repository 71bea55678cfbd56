#ifndef MAGMAX_TESTS_CUDA_ON_CPU_LIBRARY_TYPES_H
#define MAGMAX_TESTS_CUDA_ON_CPU_LIBRARY_TYPES_H

/* Stand-in for the toolkit's header: the number types that we use. */
typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 } cudaDataType_t;

#endif
