/*
 * The instruction sets of this build; "cpu" takes the first that the processor
 * has. Expanded with MM_CPU_TABLE(prefix, name); kernels/CMakeLists.txt
 * compiles the ops once for each. No include guard: it is included more than
 * once.
 *
 * x86-64-v4 comes last, so it is used only by name (cpu:x86-64-v4), until its
 * tests have passed and its speed was measured on a processor that has it.
 */
#if defined(__x86_64__)
MM_CPU_TABLE(v3, "x86-64-v3")
MM_CPU_TABLE(v2, "x86-64-v2")
MM_CPU_TABLE(v4, "x86-64-v4")
#else
MM_CPU_TABLE(base, "baseline")
#endif
