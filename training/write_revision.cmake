# Writes the commit that is being built into OUTPUT, which changes only when the commit or its cleanness does.
# Run at every build: cmake -DSOURCE=... -DTEMPLATE=... -DOUTPUT=... -P write_revision.cmake
set(SAGE_GIT_REVISION "unknown")
find_package(Git QUIET)
if(Git_FOUND AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --short=12 HEAD WORKING_DIRECTORY ${SOURCE}
    RESULT_VARIABLE git_result OUTPUT_VARIABLE git_head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(git_result EQUAL 0)
    execute_process(COMMAND ${GIT_EXECUTABLE} status --porcelain --untracked-files=no WORKING_DIRECTORY ${SOURCE}
      OUTPUT_VARIABLE git_changes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(SAGE_GIT_REVISION ${git_head})
    if(git_changes)
      string(APPEND SAGE_GIT_REVISION "+changes")
    endif()
  endif()
endif()
configure_file(${TEMPLATE} ${OUTPUT} @ONLY) # leaves an equal file alone
