# cmake -P smoke.cmake <program> <folder>
# The tiny grid: a handful of pairs is memorised, all files are written, the base is made once and
# refused when altered, and neither threads nor the cache change a digit.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(program "${CMAKE_ARGV3}")
set(folder "${CMAKE_ARGV4}")
file(REMOVE_RECURSE "${folder}")

function(run out)
  execute_process(COMMAND "${program}" --tiny --out=${folder}/${out} --cache=${folder}/cache ${ARGN}
                  RESULT_VARIABLE code OUTPUT_VARIABLE tables ERROR_VARIABLE log)
  set(code ${code} PARENT_SCOPE)
  set(log "${log}" PARENT_SCOPE)
endfunction()
function(require_success)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "it ended with ${code}:\n${log}")
  endif()
endfunction()

run(first --threads=2)
require_success()
if(NOT log MATCHES "training the base")
  message(FATAL_ERROR "no base was trained:\n${log}")
endif()
foreach(name IN ITEMS base runs curves learning_rates)
  if(NOT EXISTS "${folder}/first/${name}.csv")
    message(FATAL_ERROR "${name}.csv is missing")
  endif()
endforeach()

# method,r,pairs,seed,parameters,budget,work,learning_rate,steps,loss_before,bits_per_parameter,
# loss,accuracy,...
foreach(method IN ITEMS lora rotation full)
  file(STRINGS "${folder}/first/runs.csv" runs REGEX "^${method},")
  list(LENGTH runs count)
  if(NOT count EQUAL 2)
    message(FATAL_ERROR "${method}: expected 2 runs, found ${count}")
  endif()
  foreach(run IN LISTS runs)
    string(REPLACE "," ";" cells "${run}")
    list(GET cells 12 accuracy)
    if(accuracy LESS 0.99)
      message(FATAL_ERROR "${method} did not memorise 4 pairs: ${run}")
    endif()
  endforeach()
endforeach()

run(second --threads=1)
require_success()
if(log MATCHES "training the base")
  message(FATAL_ERROR "the base was trained twice:\n${log}")
endif()
foreach(name IN ITEMS base curves learning_rates)
  file(READ "${folder}/first/${name}.csv" first)
  file(READ "${folder}/second/${name}.csv" second)
  if(NOT first STREQUAL second)
    message(FATAL_ERROR "${name}.csv depends on the threads or on the cache")
  endif()
endforeach()

file(GLOB base "${folder}/cache/*.bin")
file(APPEND "${base}" "x")
run(third)
if(code EQUAL 0 OR NOT log MATCHES "checksum")
  message(FATAL_ERROR "an altered base was not refused:\n${log}")
endif()
