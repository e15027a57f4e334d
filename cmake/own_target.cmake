# Prepares a test, benchmark or example of this repository: links mora and switches warnings on.
# Nothing of this reaches those who use the library.
function(mora_own_target target)
  target_link_libraries(${target} PRIVATE mora::mora)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    # -Wconversion includes -Wsign-conversion in Clang only; Eigen's signed sizes and the standard
    # library's unsigned ones meet too often for it to be of use.
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                             -Wno-sign-conversion)
  elseif(MSVC)
    target_compile_options(${target} PRIVATE /W4 /permissive- /bigobj)
  endif()
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ${MORA_WERROR})
endfunction()

# An option for what does arithmetic, in builds that do not optimise: it would take minutes there. None where
# several configurations share a build.
set(mora_optimised "")
get_property(multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
string(TOUPPER "CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}" flags)
if(NOT multi_config AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang"
   AND NOT "${CMAKE_CXX_FLAGS} ${${flags}}" MATCHES "-O([1-3sz]|fast)")
  set(mora_optimised -O1)
endif()
unset(multi_config)
unset(flags)
