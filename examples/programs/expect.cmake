# For the smoke tests, which set `programs` to the folder of the programs.

# expect(<code> <regular expression in stdout and stderr> <program> <argument>...)
function(expect code regex program)
  execute_process(COMMAND "${programs}/${program}" ${ARGN} RESULT_VARIABLE found
                  OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT found EQUAL code)
    message(FATAL_ERROR "${program} ${ARGN}: expected exit code ${code}, found ${found}:\n${text}")
  endif()
  if(NOT text MATCHES "${regex}")
    message(FATAL_ERROR "${program} ${ARGN}: expected '${regex}', found:\n${text}")
  endif()
endfunction()
