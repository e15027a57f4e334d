# cmake -P include_order.cmake <folder include/mora>
# Fails when a header includes from a folder, or a library, that its own folder must not know.

cmake_minimum_required(VERSION 3.24)

set(may_include_core "")
set(may_include_operators core)
set(may_include_adapters core operators)
set(may_include_optim core)
set(may_include_analysis core operators adapters)
set(may_include_models core operators adapters)
# Single headers can stand here too.
set(may_include_train core optim models/batch.hpp)
set(may_include_io core models/batch.hpp)
# A folder in a folder can have rules of its own, instead of those.
set(may_include_io/llama core operators adapters models io io/peft/module_update.hpp)
set(may_include_io/peft core operators adapters analysis models io)
set(may_include_io/train core optim train/settings.hpp train/sampler.hpp io)

include("${CMAKE_CURRENT_LIST_DIR}/header_rules.cmake")
list(FILTER headers INCLUDE REGEX "/") # those in folders

# Of a header's path in mora/: the innermost folder that has rules, or else the outermost.
function(folder_of header result)
  get_filename_component(folder "${header}" DIRECTORY)
  if(NOT DEFINED "may_include_${folder}")
    string(REGEX MATCH "^[^/]+" folder "${header}")
  endif()
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

foreach(header IN LISTS headers)
  folder_of("${header}" folder)
  if(NOT DEFINED may_include_${folder})
    fault("the folder ${folder} is not in tests/include_order.cmake")
    continue()
  endif()
  file(STRINGS "${root}/${header}" lines REGEX "^[ \t]*#[ \t]*include[ \t]*[\"<]")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE ".*include[ \t]*[\"<]([^\">]*)[\">].*" "\\1" included "${line}")
    if(included MATCHES "^mora/[^/]+/")
      string(REGEX REPLACE "^mora/" "" other_header "${included}")
      folder_of("${other_header}" other)
      if(NOT other STREQUAL folder AND NOT other IN_LIST may_include_${folder}
         AND NOT other_header IN_LIST may_include_${folder})
        fault("${folder} must not include ${included}")
      endif()
    elseif(included MATCHES "^nlohmann/" AND NOT folder MATCHES "^io(/|$)")
      fault("only io may include ${included}")
    elseif(included MATCHES "^Eigen/" AND folder STREQUAL "io")
      fault("io must not include ${included}")
    elseif(included MATCHES "^mora/" AND NOT included STREQUAL "mora/version.hpp")
      fault("${folder} must not include ${included}, which includes it")
    elseif(line MATCHES "\"" AND NOT included MATCHES "^mora/")
      fault("write \"mora/...\" instead of \"${included}\"")
    endif()
  endforeach()
endforeach()

# The umbrella header must not need more than mora::mora does.
foreach(header IN ITEMS mora.hpp)
  file(STRINGS "${root}/${header}" lines REGEX "^[ \t]*#[ \t]*include[ \t]*[\"<](mora/io|nlohmann)/")
  if(lines)
    fault("must not include '${lines}'")
  endif()
endforeach()

end_of_rules()
