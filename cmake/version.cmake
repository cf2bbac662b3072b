# A version is what CHANGELOG.md begins with: there it has its date, which the manual page shows.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/CHANGELOG.md)
file(STRINGS ${CMAKE_SOURCE_DIR}/CHANGELOG.md headings REGEX "^## [0-9]")
list(GET headings 0 heading)
if(NOT heading MATCHES "^## ${PROJECT_VERSION} \\(([0-9]+-[0-9]+-[0-9]+)\\)$")
  message(FATAL_ERROR "CHANGELOG.md begins with '${heading}', expected '## ${PROJECT_VERSION} (YYYY-MM-DD)'")
endif()
set(TSR_VERSION_DATE ${CMAKE_MATCH_1})
