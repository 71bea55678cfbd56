# Where CMake finds what bench/gpu/prefix.py unpacked:
#
#   cmake -DMAGMAX_PREFIX=PREFIX -C bench/gpu/prefix.cmake -S . -B BUILD ...
#
# Programs get that folder as DT_RPATH, which, unlike DT_RUNPATH, also holds for
# what their libraries load; so no LD_LIBRARY_PATH, which would reach Python.
set(root "${MAGMAX_PREFIX}/usr")
set(lib "${root}/lib/x86_64-linux-gnu")

set(CMAKE_PREFIX_PATH "${root}" CACHE STRING "")
set(CMAKE_LIBRARY_PATH "${lib}" CACHE STRING "")
set(CMAKE_INCLUDE_PATH "${root}/include" CACHE STRING "")
set(PKG_CONFIG_EXECUTABLE "${MAGMAX_PREFIX}/bin/pkg-config" CACHE FILEPATH "")

# By name: the wrapper compilers know only /usr.
set(MPI_SKIP_COMPILER_WRAPPER ON CACHE BOOL "")
set(MPI_C_LIB_NAMES mpi CACHE STRING "")
set(MPI_mpi_LIBRARY "${lib}/openmpi/lib/libmpi.so" CACHE FILEPATH "")
set(MPI_C_HEADER_DIR "${lib}/openmpi/include" CACHE PATH "")
set(MPIEXEC_EXECUTABLE "${MAGMAX_PREFIX}/bin/mpirun" CACHE FILEPATH "")
set(HDF5_C_COMPILER_EXECUTABLE HDF5_C_COMPILER_EXECUTABLE-NOTFOUND
    CACHE FILEPATH "")
set(HDF5_ROOT "${lib}/hdf5/openmpi" CACHE PATH "")

# Some headers lie in a folder that Debian's compilers know by themselves.
foreach(language IN ITEMS C CXX)
  set(CMAKE_${language}_FLAGS "-isystem ${root}/include/x86_64-linux-gnu"
      CACHE STRING "")
endforeach()

set(flags "-Wl,--disable-new-dtags,-rpath,${lib},-rpath-link,${lib}")
foreach(kind IN ITEMS EXE MODULE SHARED)
  set(CMAKE_${kind}_LINKER_FLAGS "${flags}" CACHE STRING "")
endforeach()
