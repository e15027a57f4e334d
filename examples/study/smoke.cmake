# cmake -P smoke.cmake <folder of the programs> <folder>
# The tiny grid of every experiment: all files are written, and neither threads nor the cache of the
# base change a figure.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(programs "${CMAKE_ARGV3}")
set(folder "${CMAKE_ARGV4}")
file(REMOVE_RECURSE "${folder}")

function(run program out)
  execute_process(COMMAND "${programs}/${program}" --tiny --out=${folder}/${program}/${out}
                          --cache=${folder}/cache ${ARGN}
                  RESULT_VARIABLE code OUTPUT_VARIABLE tables ERROR_VARIABLE log)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${program} ended with ${code}:\n${log}")
  endif()
  if(EXISTS "${folder}/${program}/${out}/unfinished_runs.txt")
    message(FATAL_ERROR "${program} left a journal")
  endif()
endfunction()

# Runs of the results and sets that are held out.
set(arithmetic_sets 2)
set(continual_pretraining_sets 2)
set(instructions_sets 1)
set(mathematics_sets 1)
set(operators_sets 2)
set(pretraining_sets 1)
foreach(program IN ITEMS arithmetic continual_pretraining instructions mathematics operators pretraining)
  run(${program} one --threads=1)
  run(${program} two --threads=2)
  foreach(name IN ITEMS cost curves learning_rates runs singular_values spectrum)
    if(NOT EXISTS "${folder}/${program}/one/${name}.csv")
      message(FATAL_ERROR "${program}: ${name}.csv is missing")
    endif()
  endforeach()
  foreach(name IN ITEMS curves learning_rates singular_values spectrum)
    file(READ "${folder}/${program}/one/${name}.csv" one)
    file(READ "${folder}/${program}/two/${name}.csv" two)
    if(NOT one STREQUAL two)
      message(FATAL_ERROR "${program}: ${name}.csv depends on the threads or on the cache")
    endif()
  endforeach()
  file(STRINGS "${folder}/${program}/one/runs.csv" runs REGEX "^lora,2,")
  list(LENGTH runs count)
  math(EXPR expected "2 * ${${program}_sets}")
  if(NOT count EQUAL expected)
    message(FATAL_ERROR "${program}: expected ${expected} rows of lora, found ${count}")
  endif()
endforeach()

run(pretraining cost --cost --threads=1)
file(GLOB written RELATIVE "${folder}/pretraining/cost" "${folder}/pretraining/cost/*")
if(NOT written STREQUAL "cost.csv")
  message(FATAL_ERROR "--cost: expected cost.csv alone, found: ${written}")
endif()

execute_process(COMMAND "${programs}/pretraining" --tiny --methods=nothing --out=${folder}/none
                RESULT_VARIABLE code ERROR_VARIABLE log OUTPUT_QUIET)
if(NOT code EQUAL 1 OR NOT log MATCHES "no method is called 'nothing'")
  message(FATAL_ERROR "an unknown method ended with ${code}:\n${log}")
endif()
if(EXISTS "${folder}/none")
  message(FATAL_ERROR "an unknown method left a folder")
endif()
