/*
 * The GPUs of the host, and which of them a process sees.
 *
 * MAGMAX_CUDA_ON_CPU_DEVICES says how many the host has: 1 without it, fewer
 * than none for a driver that is too old. As with the vendor's runtime
 * CUDA_VISIBLE_DEVICES chooses among them and renames them. So does
 * MAGMAX_CUDA_ON_CPU_VISIBLE, where ranks see different ones, as a batch system
 * arranges it: "0/1" shows GPU 0 to the host's first rank and GPU 1 to its
 * second one, "0,1/" both to the first one and none to the second.
 */
#include "tests/cuda_on_cpu/launch.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

using namespace mm_emu;

namespace
{

thread_local int current_device;

int number_in(const char *variable, int fallback)
{
    const char *text = std::getenv(variable);
    return text ? std::atoi(text) : fallback;
}

/** The n-th part of `text`; "" beyond the last. */
std::string part(const std::string &text, char separator, int n)
{
    std::istringstream parts(text);
    std::string found;
    for (int i = 0; i <= n; i++)
        if (!std::getline(parts, found, separator))
            return "";
    return found;
}

/** Numbers on the host of the GPUs that this process sees. */
std::vector<int> visible_devices()
{
    std::vector<int> numbers;
    const char *by_rank = std::getenv("MAGMAX_CUDA_ON_CPU_VISIBLE");
    const char *visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (!by_rank && !visible) {
        for (int i = 0; i < number_in("MAGMAX_CUDA_ON_CPU_DEVICES", 1); i++)
            numbers.push_back(i);
        return numbers;
    }
    std::istringstream list(
        by_rank ? part(by_rank, '/', number_in("OMPI_COMM_WORLD_LOCAL_RANK", 0))
                : visible);
    for (std::string number; std::getline(list, number, ',');)
        numbers.push_back(std::atoi(number.c_str()));
    return numbers;
}

} // namespace

std::size_t mm_emu::most_shared_bytes()
{
    return static_cast<std::size_t>(
               number_in("MAGMAX_CUDA_ON_CPU_SHARED_KIB", 227))
           << 10;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (number_in("MAGMAX_CUDA_ON_CPU_DEVICES", 1) < 0)
        return cudaErrorInsufficientDriver;
    *count = static_cast<int>(visible_devices().size());
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = number_in("MAGMAX_CUDA_ON_CPU_DEVICES", 1) < 0 ? 12040 : 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    int n_devices;
    cudaError_t error = cudaGetDeviceCount(&n_devices);
    if (error != cudaSuccess)
        return error;
    if (device < 0 || device >= n_devices)
        return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device)
{
    std::vector<int> numbers = visible_devices();
    if (device < 0 || static_cast<std::size_t>(device) >= numbers.size())
        return cudaErrorInvalidDevice;
    std::snprintf(
        id, static_cast<std::size_t>(size), "0000:%02X:00.0",
        static_cast<unsigned>(1 + numbers[static_cast<std::size_t>(device)]));
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int)
{
    *prop = cudaDeviceProp{};
    std::snprintf(prop->name, sizeof prop->name, "CUDA on CPU");
    prop->totalGlobalMem = std::size_t{1} << 34;
    prop->sharedMemPerBlockOptin = most_shared_bytes();
    prop->major = 8;
    prop->multiProcessorCount = 3;
    return cudaSuccess;
}
