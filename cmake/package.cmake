# A Debian package, by `cpack` in the build folder. What it depends on is what dpkg-shlibdeps finds
# the program to be linked with; NCCL is loaded while running, mpirun is started.
if(TSR_SANITIZE_ADDRESS OR TSR_SANITIZE_THREAD)
  return()
endif()

set(TSR_MAINTAINER "Tessera maintainers <maintainers@tessera.invalid>" CACHE STRING
  "who answers for the package: Name <address>")
set(TSR_REVISION 1 CACHE STRING "what tells packages of one version apart, beside CUDA's version")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tessera)
set(CPACK_PACKAGE_CONTACT ${TSR_MAINTAINER})
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_SOURCE_DIR}/cmake/package_modes.cmake)
set(CPACK_INSTALL_CMAKE_PROJECTS
  "${CMAKE_BINARY_DIR};tessera;program;/;${CMAKE_BINARY_DIR};tessera;debian;/")

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openmpi-bin)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS bash-completion)
set(computes "the CPU")
set(revision ${TSR_REVISION})
if(TSR_HAS_CUDA)
  string(REGEX MATCH "^[0-9]+\\.[0-9]+" cuda ${CMAKE_CUDA_COMPILER_VERSION})
  string(APPEND computes " and NVIDIA GPUs (CUDA ${cuda})")
  string(APPEND revision "+cuda${cuda}")
endif()
set(CPACK_DEBIAN_PACKAGE_RELEASE ${revision})
if(TSR_HAS_NCCL)
  string(APPEND CPACK_DEBIAN_PACKAGE_SUGGESTS ", libnccl2 (>= ${TSR_NCCL_OLDEST})")
endif()
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
  "server of mixture-of-experts models in mixed precision
Reads Qwen3-MoE and GLM-4.x checkpoints as NVIDIA ModelOpt exports them,
each layer in its own precision (NVFP4, FP8, BF16), and serves them over
many ranks by MPI: batches of requests, and OpenAI's HTTP API.
.
This package computes on ${computes}.")

# What Debian wants beside the files; the version was made at noon of its day.
execute_process(COMMAND env LC_ALL=C date -u -d "${TSR_VERSION_DATE} 12:00" -R
  OUTPUT_VARIABLE day OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
file(WRITE ${pages}/changelog.Debian "tessera (${PROJECT_VERSION}-${revision}) unstable; urgency=medium

  * What is new is in changelog.gz.

 -- ${TSR_MAINTAINER}  ${day}
")
configure_file(CHANGELOG.md ${pages}/changelog COPYONLY)
execute_process(COMMAND gzip -9nf ${pages}/changelog.Debian ${pages}/changelog COMMAND_ERROR_IS_FATAL ANY)
install(FILES deploy/debian/copyright ${pages}/changelog.gz ${pages}/changelog.Debian.gz
  DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT debian EXCLUDE_FROM_ALL)

include(CPack)
