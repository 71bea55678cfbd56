/*
 * Where a kernel was when it touched what it may not: printed before whoever
 * handled the signal so far (the default, AddressSanitizer) has it.
 */
#include "tests/cuda_on_cpu/launch.h"

#include <csignal>
#include <cstdio>
#include <memory>
#include <mutex>
#include <unistd.h>

namespace mm_emu
{

namespace
{

struct sigaction before_segv, before_bus;

/* The instruction faults again once the signal is the other handler's. */
void on_fault(int signal_number, siginfo_t *info, void *)
{
    const char *kernel;
    dim3 b, t;
    char text[512];
    if (running(&kernel, &b, &t)) {
        const int n = std::snprintf(
            text, sizeof text,
            "cuda on cpu: kernel %.256s: block (%u, %u, %u), thread (%u, %u, "
            "%u) may not touch %p\n",
            kernel, b.x, b.y, b.z, t.x, t.y, t.z, info->si_addr);
        (void)!write(STDERR_FILENO, text, static_cast<std::size_t>(n));
    }
    sigaction(signal_number,
              signal_number == SIGSEGV ? &before_segv : &before_bus, nullptr);
}

void handle(int signal_number, struct sigaction *before)
{
    struct sigaction now = {}, ours = {};
    sigaction(signal_number, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
        return;
    *before = now;
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(signal_number, &ours, nullptr);
}

/* A fibre whose stack has run over cannot handle that on it. */
void need_signal_stack()
{
    static thread_local std::unique_ptr<char[]> own;
    constexpr std::size_t N_BYTES = 64 << 10;
    stack_t stack = {};
    sigaltstack(nullptr, &stack);
    if (!(stack.ss_flags & SS_DISABLE))
        return;
    own = std::make_unique<char[]>(N_BYTES);
    stack = {};
    stack.ss_sp = own.get();
    stack.ss_size = N_BYTES;
    sigaltstack(&stack, nullptr);
}

} // namespace

void name_faults()
{
    static std::mutex lock;
    need_signal_stack();
    std::lock_guard<std::mutex> hold(lock);
    handle(SIGSEGV, &before_segv);
    handle(SIGBUS, &before_bus);
}

} // namespace mm_emu
