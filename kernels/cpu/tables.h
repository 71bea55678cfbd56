/*
 * The instruction sets of this build; "cpu" takes the first that the processor
 * has. Expanded with MM_CPU_TABLE(prefix, name); kernels/CMakeLists.txt
 * compiles the ops once for each. No include guard: it is included more than
 * once.
 */
#if defined(__x86_64__)
MM_CPU_TABLE(v3, "x86-64-v3")
MM_CPU_TABLE(v2, "x86-64-v2")
#else
MM_CPU_TABLE(base, "baseline")
#endif
