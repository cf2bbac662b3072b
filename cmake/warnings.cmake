# The warning set: one interface library that every target of ours links.
add_library(tsr_warnings INTERFACE)
target_compile_definitions(tsr_warnings INTERFACE _POSIX_C_SOURCE=200809L)
target_compile_options(tsr_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wold-style-definition
  -Wmissing-declarations -Wvla -Wundef -Wpointer-arith -Wcast-qual -Wwrite-strings -Wformat=2
  -Wswitch-enum -Wimplicit-fallthrough -Wdouble-promotion -fno-common -fno-math-errno
  -ffp-contract=off)
if(TSR_WERROR)
  target_compile_options(tsr_warnings INTERFACE -Werror)
endif()
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(tsr_warnings INTERFACE
    -Wnull-dereference -Wduplicated-cond -Wlogical-op -Wjump-misses-init)
elseif(CMAKE_C_COMPILER_ID STREQUAL "Clang")
  target_compile_options(tsr_warnings INTERFACE -Wcomma -Wunreachable-code)
endif()
