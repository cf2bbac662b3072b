# The warning set: one interface library that every target of ours links. It is C's; what nvcc is
# told stands beside the kernels.
add_library(tsr_warnings INTERFACE)
target_compile_definitions(tsr_warnings INTERFACE _POSIX_C_SOURCE=200809L)
set(warnings
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wold-style-definition
  -Wmissing-declarations -Wvla -Wundef -Wpointer-arith -Wcast-qual -Wwrite-strings -Wformat=2
  -Wswitch-enum -Wimplicit-fallthrough -Wdouble-promotion -fno-common -fno-math-errno
  -ffp-contract=off)
if(TSR_WERROR)
  list(APPEND warnings -Werror)
endif()
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  list(APPEND warnings -Wnull-dereference -Wduplicated-cond -Wlogical-op -Wjump-misses-init)
elseif(CMAKE_C_COMPILER_ID STREQUAL "Clang")
  list(APPEND warnings -Wcomma -Wunreachable-code)
endif()
target_compile_options(tsr_warnings INTERFACE "$<$<COMPILE_LANGUAGE:C>:${warnings}>")
