#ifndef MAGMAX_TESTS_CUDA_ON_CPU_FIBRE_H
#define MAGMAX_TESTS_CUDA_ON_CPU_FIBRE_H

#include <cstddef>

namespace mm_emu
{

/** A stack, and a place on it to go on at. */
struct fibre {
    void *resume = nullptr;
    char *memory = nullptr; /* own stack with its guard page, or NULL */
    const void *bottom = nullptr;
    std::size_t n_bytes = 0;
    void *fake_stack = nullptr;  /* AddressSanitizer's */
    unsigned valgrind_stack = 0; /* its number with Valgrind */
    void (*main)(void *) = nullptr;
    void *argument = nullptr;

    /** The stack of the calling thread of the operating system. */
    fibre();
    /** A stack of its own on which `main_` starts; it must not return. */
    fibre(void (*main_)(void *), void *argument_);
    ~fibre();
    fibre(const fibre &) = delete;
    fibre &operator=(const fibre &) = delete;
};

/** Leave `from`, which is running, and go on with `to`. */
void fibre_switch(fibre *from, fibre *to);

} // namespace mm_emu

#endif
