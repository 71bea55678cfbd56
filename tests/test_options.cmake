# How often and where a test runs: what the "ctest:" line of its first comment
# says. README.md describes the words.

# variant(WORD SUFFIX WHERE SETTING...): a test with that word runs once more, as
# NAME.DEVICE.SUFFIX, with those settings of the environment. WHERE: cuda, whatever
# that is here; emulated, by the CPU even where that is a GPU.
set(VARIANT_WORDS "")
macro(variant word suffix where)
  list(APPEND VARIANT_WORDS ${word})
  string(REPLACE ";" "|" settings "${ARGN}")
  list(APPEND VARIANTS_${word} ".${suffix}|${where}|${settings}")
endmacro()

# Gradients of biases, added up in the other ways, and attention's in one block of
# eight warps instead of two of four (kernels/cuda/variants.h). The former have
# kernels of other tests, which sanitized builds run.
if(NOT MAGMAX_SANITIZE)
  variant(bias_sums separate cuda MAGMAX_CUDA_VARIANTS=bias_sums=separate)
  variant(bias_sums library cuda MAGMAX_CUDA_VARIANTS=bias_sums=library)
endif()
variant(one_pass one_pass cuda MAGMAX_CUDA_VARIANTS=attention_grad=one_pass)
# The shared memory of an A100; the emulation's is an H100's.
variant(sm_80 sm_80 emulated MAGMAX_CUDA_ON_CPU_SHARED_KIB=163)
# Other orders of what several streams do (cuda_on_cpu/streams.cpp).
foreach(seed IN ITEMS 2 3)
  variant(seeds seed${seed} emulated MAGMAX_CUDA_ON_CPU_SEED=${seed})
endforeach()
# The library refuses epilogues, in each way that it may. A bias that is added
# beforehand is rounded twice in bf16.
foreach(way IN ITEMS no_algorithm invalid attribute run)
  variant(no_epilogues no_epilogues.${way} emulated
    MAGMAX_CUDA_VARIANTS=bias_sums=library MAGMAX_CUDA_ON_CPU_EPILOGUES=${way})
endforeach()
list(APPEND VARIANT_WORDS bias_sums) # known, though not run, in sanitized builds
list(REMOVE_DUPLICATES VARIANT_WORDS)

# devices_of(OUT PRECISIONS): of "fp32,bf16" the devices cuda and cuda:bf16.
function(devices_of out precisions)
  string(REPLACE "," ";" devices "${precisions}")
  list(TRANSFORM devices PREPEND "cuda:")
  list(TRANSFORM devices REPLACE ":fp32$" "")
  set(${out} ${devices} PARENT_SCOPE)
endfunction()

# Read the "ctest:" line of `source` into TEST_SLOW, TEST_COST, ... of the caller,
# which holds the defaults. TEST_RUNS: the runs besides the plain one, each
# "DEVICE|SUFFIX|WHERE|SETTING|...", for read_test_run.
macro(read_test_options source)
  set(TEST_SLOW OFF)
  set(TEST_GPU OFF)
  set(TEST_UNWIND "")
  set(TEST_COST 0)
  set(TEST_RUNS ${TEST_RUNS_OF_ALL})
  file(STRINGS "${source}" option_lines LIMIT_INPUT 4096
       REGEX "^[ #/*]*ctest: ")
  set(option_words "")
  foreach(line IN LISTS option_lines)
    string(REGEX REPLACE "^[ #/*]*ctest: +|[ */]+$" "" line "${line}")
    string(REGEX REPLACE " +" ";" line "${line}")
    list(APPEND option_words ${line})
  endforeach()
  foreach(word IN LISTS option_words)
    string(REGEX MATCH "^([a-z0-9_]+)(=([a-z0-9,]+))?$" match "${word}")
    set(key "${CMAKE_MATCH_1}")
    set(value "${CMAKE_MATCH_3}")
    if(word STREQUAL "slow")
      set(TEST_SLOW ON)
    elseif(word STREQUAL "unwind")
      if(MAGMAX_SANITIZE)
        set(TEST_UNWIND ASAN_OPTIONS=${ASAN_SETTINGS}:fast_unwind_on_malloc=0)
      endif()
    elseif(key MATCHES "^(cuda|gpu)$")
      if(key STREQUAL "gpu")
        set(TEST_GPU ON)
      endif()
      devices_of(devices "fp32,${value}")
      list(REMOVE_ITEM devices "cuda:")
      if(key STREQUAL "cuda" OR MAGMAX_TEST_CUDA STREQUAL "gpu")
        list(TRANSFORM devices APPEND "||cuda|")
        list(APPEND TEST_RUNS ${devices})
      endif()
    elseif(key IN_LIST VARIANT_WORDS AND value)
      devices_of(devices "${value}")
      foreach(variant IN LISTS VARIANTS_${key})
        foreach(device IN LISTS devices)
          list(APPEND TEST_RUNS "${device}|${variant}")
        endforeach()
      endforeach()
    elseif(key STREQUAL "cost" AND value)
      set(TEST_COST ${value})
    elseif(key STREQUAL "processors" AND value)
      set(TEST_PROCESSORS ${value})
    elseif(key STREQUAL "ranks" AND value)
      string(REPLACE "," ";" TEST_RANKS "${value}")
    else()
      list(JOIN VARIANT_WORDS ", " known)
      message(FATAL_ERROR "${source}: unknown test option '${word}'; known: "
        "slow, unwind, cuda, gpu, cost=N, processors=N, ranks=N,N, and with "
        "=PRECISION,...: ${known}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES TEST_RUNS)
  if(TEST_SLOW)
    set(TEST_SPEED slow)
  else()
    set(TEST_SPEED fast)
  endif()
endmacro()

# Take a run of TEST_RUNS apart: RUN_DEVICE; RUN_SUFFIX of its name; RUN_VARIANT,
# that of the variant alone, or empty; RUN_LABEL, cuda or empty; RUN_SETTINGS of the
# variant; RUN_ENVIRONMENT, those and the modules.
macro(read_test_run run)
  string(REGEX MATCH "^([^|]*)\\|([^|]*)\\|(cuda|emulated)\\|(.*)$" match "${run}")
  set(RUN_DEVICE "${CMAKE_MATCH_1}")
  set(RUN_VARIANT "${CMAKE_MATCH_2}")
  string(REPLACE ":" "." RUN_SUFFIX ".${RUN_DEVICE}${RUN_VARIANT}")
  string(REPLACE "|" ";" RUN_SETTINGS "${CMAKE_MATCH_4}")
  if(CMAKE_MATCH_3 STREQUAL "cuda")
    set(RUN_LABEL cuda)
    set(RUN_ENVIRONMENT ${CUDA_ENVIRONMENT} ${RUN_SETTINGS})
  else()
    set(RUN_LABEL "")
    set(RUN_ENVIRONMENT ${CUDA_ON_CPU_ENVIRONMENT} ${RUN_SETTINGS})
  endif()
endmacro()
