# cmake -DCOMPILER= -DFLAGS= -DINCLUDES=a|b -DSOURCE= -DEXPECTED= -P run.cmake
# With an empty EXPECTED the source must compile, else it must fail with a text that matches.

separate_arguments(flags NATIVE_COMMAND "${FLAGS}")
string(REPLACE "|" ";" includes "${INCLUDES}")
list(TRANSFORM includes PREPEND "-I")
execute_process(
  COMMAND "${COMPILER}" ${flags} ${includes} "${SOURCE}"
  RESULT_VARIABLE result
  OUTPUT_VARIABLE output
  ERROR_VARIABLE output)

if(EXPECTED STREQUAL "")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "must compile, but:\n${output}")
  endif()
elseif(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, but must not")
elseif(NOT output MATCHES "${EXPECTED}")
  message(FATAL_ERROR "no text matching '${EXPECTED}' in:\n${output}")
endif()
