# What `cmake --install` puts where, by GNU's names: program, manual page, completion, documentation,
# examples of deployment, and the demo model to try it all with. The program writes the page and the
# completion itself, from its option table.
include(GNUInstallDirs)

# What a sanitizer watches is run where it was built.
if(TSR_SANITIZE_ADDRESS OR TSR_SANITIZE_THREAD)
  return()
endif()

set(pages ${CMAKE_BINARY_DIR}/pages)
file(MAKE_DIRECTORY ${pages})
add_custom_command(OUTPUT ${pages}/tessera.1.gz ${pages}/completion.bash
  COMMAND tessera manual > ${pages}/tessera.1
  COMMAND gzip -9nf ${pages}/tessera.1
  COMMAND tessera completion > ${pages}/completion.bash
  DEPENDS tessera VERBATIM)
add_custom_target(pages ALL DEPENDS ${pages}/tessera.1.gz ${pages}/completion.bash)

install(TARGETS tessera RUNTIME COMPONENT program)
install(FILES ${pages}/tessera.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT program)
install(FILES ${pages}/completion.bash RENAME tessera
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT program)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(DIRECTORY tests/data/demo-mixed DESTINATION ${CMAKE_INSTALL_DATADIR}/tessera
  COMPONENT program PATTERN grading.jsonl EXCLUDE)

# Each folder of deploy/ but those that need the sources.
file(GLOB examples CONFIGURE_DEPENDS LIST_DIRECTORIES true deploy/*)
list(FILTER examples EXCLUDE REGEX "\\.sh$|/debian$|/docker$")
install(DIRECTORY ${examples} DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT program
  PATTERN "*.sh" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
    GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

# Debian's packages have these in other forms.
install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT texts)
