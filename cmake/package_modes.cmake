# Run by cpack: what is packaged is for all, whatever the builder's umask keeps to himself.
execute_process(COMMAND chmod -R u=rwX,go=rX ${CPACK_TEMPORARY_DIRECTORY} COMMAND_ERROR_IS_FATAL ANY)
