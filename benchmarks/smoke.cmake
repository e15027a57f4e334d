# cmake -P smoke.cmake <program rank_capacity> <folder>
# A few jobs of the parts that are quick without optimisation: the program links and runs, and writes their files. Training
# (memorise) takes minutes then.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(program "${CMAKE_ARGV3}")
set(folder "${CMAKE_ARGV4}")
file(REMOVE_RECURSE "${folder}")
execute_process(
  COMMAND "${program}" "--out=${folder}" --threads=1
          "--benchmark_filter=^(capacity/shape:768x768|approximate/gaussian)/r:1/(lora|sharing)/"
  RESULT_VARIABLE code OUTPUT_VARIABLE tables ERROR_VARIABLE log)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "it ended with ${code}:\n${log}")
endif()
foreach(name IN ITEMS capacity approximation)
  file(STRINGS "${folder}/${name}.csv" rows REGEX "lora")
  if(NOT rows)
    message(FATAL_ERROR "${name}.csv has no row of LoRA's")
  endif()
endforeach()
if(NOT tables MATCHES "LoRA's best update is closer")
  message(FATAL_ERROR "no conclusion in the tables:\n${tables}")
endif()
