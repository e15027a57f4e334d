# cmake -P source_rules.cmake <folder include/mora>
# Fails when a header of the library does what none should, or only one.

cmake_minimum_required(VERSION 3.24)

include("${CMAKE_CURRENT_LIST_DIR}/header_rules.cmake")

# forbid(<regular expression> <reason> [ONLY_IN <header>] [UNLESS <regular expression>]): in the code,
# comments left out.
function(forbid regex reason)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "ONLY_IN;UNLESS" "")
  foreach(header IN LISTS headers)
    if(header STREQUAL "${arg_ONLY_IN}")
      continue()
    endif()
    file(STRINGS "${root}/${header}" lines REGEX "${regex}")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "//.*" "" code "${line}")
      if(code MATCHES "${regex}" AND NOT (arg_UNLESS AND code MATCHES "${arg_UNLESS}"))
        string(STRIP "${line}" line)
        fault("${reason}:\n  ${line}")
      endif()
    endforeach()
  endforeach()
  set(faults ${faults} PARENT_SCOPE)
endfunction()

set(name "[A-Za-z_]+")
forbid("(^|[^a-zA-Z_])s?rand *\\(|random_device|[:.]Random *\\(|setRandom" "generators are passed in")
forbid("thread_local" "mutable state, other than working memory" ONLY_IN core/scratch.hpp)
forbid("^[ \t]*(static|inline|extern)[ \t][^()]*[;={]" "mutable state" UNLESS "const|namespace|struct|class")
forbid("(^|[ \t])mutable[ \t][^()]*;" "mutable state behind const" UNLESS "ConcurrentUse<> use_")
forbid("noalias *\\(" "aliasing is checked in one place" ONLY_IN core/matrix_vector.hpp)
forbid("Eigen::internal" "not Eigen's public interface")
forbid("(^|[^a-z_])(eigen_)?assert *\\(" "an assert is no validation")
forbid("^[ \t]*(\\[\\[nodiscard\\]\\] *)?((static|inline|constexpr|friend) +)*auto +${name} *\\("
       "a function that returns auto may return an expression")
forbid("using namespace" "names of others")
forbid("std::(cout|cerr|clog)|printf *\\(" "a library does not print")

end_of_rules()
