# tsr_embed(TARGET FILE NAME): the bytes of FILE as `const char NAME[]` and `const size_t NAME_bytes`.
function(tsr_embed target file name)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  file(READ ${source} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${name}.c @ONLY CONTENT
"#include <stddef.h>
extern const char @name@[];
extern const size_t @name@_bytes;
const char @name@[] = {@bytes@};
const size_t @name@_bytes = sizeof(@name@);
")
  target_sources(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/${name}.c)
endfunction()
