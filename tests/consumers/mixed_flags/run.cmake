# cmake -DCOMPILER= -DFLAGS= -DINCLUDES=a|b -DBINARY= -DX86= -DOPENMP= -P run.cmake
# Two translation units that hand a layer to each other must not link when their flags differ in
# what changes the layout, and must link and run when they do not. Those that only use mora each for
# itself must run in one program whatever their flags.

separate_arguments(common NATIVE_COMMAND "${FLAGS}")
list(APPEND common -UNDEBUG -fno-openmp)
if(X86)
  list(APPEND common -mno-avx -mno-fma)
endif()
string(REPLACE "|" ";" includes "${INCLUDES}")
list(TRANSFORM includes PREPEND "-I")
file(MAKE_DIRECTORY "${BINARY}")

set(optimise -O0)
function(compile source object)
  execute_process(
    COMMAND "${COMPILER}" ${common} ${includes} ${optimise} ${ARGN} -c
            "${CMAKE_CURRENT_LIST_DIR}/${source}" -o "${BINARY}/${object}"
    COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# The extra flags are those of the odd object: what OpenMP needs is then never what is missing.
function(link object)
  execute_process(
    COMMAND "${COMPILER}" ${common} "${BINARY}/maker.o" "${BINARY}/${object}" ${ARGN} -o
            "${BINARY}/program"
    RESULT_VARIABLE result
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  set(result "${result}" PARENT_SCOPE)
  set(output "${output}" PARENT_SCOPE)
endfunction()

compile(maker.cpp maker.o)
compile(user.cpp user.o)
link(user.o)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "equal flags must link, but:\n${output}")
endif()
execute_process(COMMAND "${BINARY}/program" COMMAND_ERROR_IS_FATAL ANY)

function(expect_does_not_link flag)
  compile(user.cpp user_other.o ${ARGN} ${flag})
  link(user_other.o ${ARGN} ${flag})
  if(result EQUAL 0)
    message(FATAL_ERROR "${flag} in one of two translation units links, but must not")
  elseif(NOT output MATCHES "undefined (reference|symbol)[^\n]*width_of")
    message(FATAL_ERROR "${flag}: another failure than the missing function:\n${output}")
  endif()
endfunction()

set(differences -DNDEBUG)
if(OPENMP)
  list(APPEND differences -fopenmp)
endif()
if(X86)
  list(APPEND differences -mavx)
endif()
foreach(flag IN LISTS differences)
  expect_does_not_link(${flag})
endforeach()
if(X86)
  compile(maker.cpp maker.o -mavx)
  expect_does_not_link(-mfma -mavx)
endif()

# Optimised, as inlining decides which of two definitions a call reaches. Eigen's own functions have
# no tag, and those that allocate differ with the alignment that the vectors ask for; so code for
# different vectors has to agree on one.
set(optimise -O1 -DEIGEN_MAX_ALIGN_BYTES=32)
compile(apart_main.cpp apart_main.o)
compile(apart.cpp first.o -DMORA_PART=first_part)
foreach(flag IN LISTS differences)
  compile(apart.cpp second.o -DMORA_PART=second_part ${flag})
  foreach(order IN ITEMS "first.o|second.o" "second.o|first.o")
    string(REPLACE "|" ";" objects "${order}")
    list(TRANSFORM objects PREPEND "${BINARY}/")
    execute_process(COMMAND "${COMPILER}" ${common} "${BINARY}/apart_main.o" ${objects} ${flag} -o
                            "${BINARY}/apart" COMMAND_ERROR_IS_FATAL ANY)
    execute_process(COMMAND "${BINARY}/apart" RESULT_VARIABLE result)
    if(NOT result EQUAL 0)
      message(FATAL_ERROR "${flag} in one of two parts, ${order}: ${result}")
    endif()
  endforeach()
endforeach()
