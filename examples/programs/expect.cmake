# For the smoke tests, which set `programs` to the folder of the programs.

# expect_same_tokens(<argument|argument|...>...): generate prints the same tokens for each of these.
function(expect_same_tokens)
  set(said)
  foreach(arguments IN LISTS ARGN)
    string(REPLACE "|" ";" arguments "${arguments}")
    execute_process(COMMAND "${programs}/generate" ${arguments} --tokens OUTPUT_VARIABLE text
                    COMMAND_ERROR_IS_FATAL ANY)
    list(APPEND said "${text}")
  endforeach()
  list(REMOVE_DUPLICATES said)
  list(LENGTH said count)
  if(NOT count EQUAL 1 OR NOT said MATCHES "^([0-9]+ )+\n$")
    message(FATAL_ERROR "${ARGN}: expected the same tokens, found: ${said}")
  endif()
endfunction()

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
