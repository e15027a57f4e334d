# For the scripts that look at the library's headers: cmake -P <script> <folder include/mora>. Gives `root`,
# `headers`, fault() and end_of_rules().

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(root "${CMAKE_ARGV3}")
file(GLOB_RECURSE headers RELATIVE "${root}" "${root}/*.hpp")
if(NOT headers)
  message(FATAL_ERROR "no headers in '${root}'")
endif()

set(faults 0)
# Of the header that is looked at.
macro(fault text)
  message(NOTICE "${root}/${header}: ${text}")
  math(EXPR faults "${faults} + 1")
endmacro()

macro(end_of_rules)
  if(faults)
    message(FATAL_ERROR "${faults} fault(s)")
  endif()
endmacro()
