/* Switching stacks: a few instructions on x86-64, ucontext elsewhere. */
#include "tests/cuda_on_cpu/fibre.h"
#include "tests/cuda_on_cpu/launch.h"

#include <pthread.h>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(from, to) 0u
#define VALGRIND_STACK_DEREGISTER(stack) ((void)(stack))
#endif

namespace mm_emu
{

namespace
{

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t STACK_BYTES = 256 << 10;

void leave(fibre *from, const fibre *to)
{
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->n_bytes);
}

void arrive(const fibre *now)
{
    __sanitizer_finish_switch_fiber(now->fake_stack, nullptr, nullptr);
}
#else
constexpr std::size_t STACK_BYTES = 64 << 10;

void leave(fibre *, const fibre *)
{
}

void arrive(const fibre *)
{
}
#endif
constexpr std::size_t GUARD_BYTES = 4096;

__thread fibre *starting __attribute__((tls_model("initial-exec")));

void first_steps()
{
    fibre *me = starting;
    arrive(me);
    me->main(me->argument);
    die("a fibre returned");
}

} // namespace

fibre::fibre()
{
    pthread_attr_t attributes;
    void *stack = nullptr;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        pthread_attr_getstack(&attributes, &stack, &n_bytes);
        pthread_attr_destroy(&attributes);
    }
    bottom = stack;
#ifndef __x86_64__
    resume = new ucontext_t;
#endif
}

fibre::~fibre()
{
#ifndef __x86_64__
    delete static_cast<ucontext_t *>(resume);
#endif
    if (!memory)
        return;
    VALGRIND_STACK_DEREGISTER(valgrind_stack);
    munmap(memory, GUARD_BYTES + STACK_BYTES);
}

fibre::fibre(void (*main_)(void *), void *argument_)
    : n_bytes(STACK_BYTES), main(main_), argument(argument_)
{
    void *mapped =
        mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        die("no memory for a thread's stack");
    memory = static_cast<char *>(mapped);
    mprotect(memory, GUARD_BYTES, PROT_NONE);
    bottom = memory + GUARD_BYTES;
    valgrind_stack = VALGRIND_STACK_REGISTER(
        memory + GUARD_BYTES, memory + GUARD_BYTES + STACK_BYTES);
#ifdef __x86_64__
    /* As if it had called mm_emu_swap_stacks from before its first line: six
     * registers, the place to return to, and a stack aligned as for a call. */
    void **top = reinterpret_cast<void **>(memory + GUARD_BYTES + STACK_BYTES);
    /* Not all at the same place in a page: a processor's cache would have room
     * for those of few threads. */
    static thread_local unsigned n_made;
    top -= n_made++ % 32 * 16 + 1;
    *--top = reinterpret_cast<void *>(first_steps);
    resume = top - 6;
#else
    ucontext_t *context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = memory + GUARD_BYTES;
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, first_steps, 0);
    resume = context;
#endif
}

#ifdef __x86_64__
extern "C" void mm_emu_swap_stacks(void **save, void *load);

/* Keeps the registers that a function must keep. */
asm(".text\n"
    ".type mm_emu_swap_stacks, @function\n"
    "mm_emu_swap_stacks:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size mm_emu_swap_stacks, .-mm_emu_swap_stacks\n");
#endif

void fibre_switch(fibre *from, fibre *to)
{
    starting = to;
    leave(from, to);
#ifdef __x86_64__
    mm_emu_swap_stacks(&from->resume, to->resume);
#else
    swapcontext(static_cast<ucontext_t *>(from->resume),
                static_cast<ucontext_t *>(to->resume));
#endif
    arrive(from);
}

} // namespace mm_emu
