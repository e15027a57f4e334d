# What mora needs, taken from the machine or else from a pinned release archive. Functions keep the
# settings for a fetched project out of everybody else's scope.

include_guard(DIRECTORY)

# mora_fetch_headers(<project> <what> <target> <include folder> <url> <sha256>): unpacks an archive,
# without its own build, which adds targets and options, and makes of its headers an imported target:
# its folder counts as a system one then, and its warnings are nobody's concern. Sets
# <project>_SOURCE_DIR.
macro(mora_fetch_headers project what target folder url sha256)
  include(FetchContent)
  FetchContent_Declare(
    ${project}
    URL ${url}
    URL_HASH SHA256=${sha256}
    DOWNLOAD_EXTRACT_TIMESTAMP FALSE
    # A folder that is not there: unpack only.
    SOURCE_SUBDIR unpack-only)
  message(STATUS "mora: no ${what} installed, downloading it")
  FetchContent_MakeAvailable(${project})
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} INTERFACE "${${project}_SOURCE_DIR}${folder}")
endmacro()

# Defines Eigen3::Eigen unless it exists already.
function(mora_require_eigen)
  if(NOT TARGET Eigen3::Eigen)
    # No version here: asking for 3.4 rejects 5.x, and a range fails with 3.4.0's own version file.
    find_package(Eigen3 CONFIG QUIET GLOBAL)
  endif()

  if(TARGET Eigen3::Eigen)
    if(DEFINED Eigen3_VERSION AND (Eigen3_VERSION VERSION_LESS 3.4 OR Eigen3_VERSION
                                                                     VERSION_GREATER_EQUAL 6))
      message(
        FATAL_ERROR
          "mora works with Eigen 3.4.0 to 5.x, but version ${Eigen3_VERSION} was found in "
          "'${Eigen3_DIR}'. Set Eigen3_DIR to another one, or set "
          "CMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON to have Eigen 3.4.0 downloaded.")
    endif()
    return()
  endif()

  mora_fetch_headers(
    mora_eigen "Eigen 3.4.0" Eigen3::Eigen ""
    https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
    8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72)
  set(mora_fetched_eigen "${mora_eigen_SOURCE_DIR}" PARENT_SCOPE)
endfunction()

# Defines nlohmann_json::nlohmann_json unless it exists already.
function(mora_require_json)
  if(NOT TARGET nlohmann_json::nlohmann_json)
    find_package(nlohmann_json CONFIG QUIET GLOBAL)
  endif()

  if(TARGET nlohmann_json::nlohmann_json)
    if(DEFINED nlohmann_json_VERSION AND nlohmann_json_VERSION VERSION_LESS 3.10)
      message(
        FATAL_ERROR
          "mora::io works with nlohmann/json 3.10 or later, but version ${nlohmann_json_VERSION} "
          "was found in '${nlohmann_json_DIR}'. Set nlohmann_json_DIR to another one, set "
          "CMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON to have 3.11.3 downloaded, or set "
          "MORA_IO=OFF.")
    endif()
    return()
  endif()

  mora_fetch_headers(
    mora_json "nlohmann/json 3.11.3" nlohmann_json::nlohmann_json /include
    https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
    d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)
  set(mora_fetched_json "${mora_json_SOURCE_DIR}" PARENT_SCOPE)
endfunction()

# Defines GTest::gtest_main.
function(mora_require_googletest)
  if(NOT TARGET GTest::gtest_main)
    find_package(GTest CONFIG QUIET GLOBAL)
  endif()
  if(TARGET GTest::gtest_main)
    return()
  endif()

  include(FetchContent)
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  FetchContent_Declare(
    googletest
    URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    URL_HASH SHA256=8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7
    DOWNLOAD_EXTRACT_TIMESTAMP FALSE)
  message(STATUS "mora: no GoogleTest installed, downloading 1.14.0")
  FetchContent_MakeAvailable(googletest)
endfunction()

# Defines benchmark::benchmark.
function(mora_require_benchmark)
  if(NOT TARGET benchmark::benchmark)
    find_package(benchmark CONFIG QUIET GLOBAL)
  endif()
  if(TARGET benchmark::benchmark)
    return()
  endif()

  include(FetchContent)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  set(BENCHMARK_INSTALL_DOCS OFF)
  set(BENCHMARK_ENABLE_WERROR OFF)
  FetchContent_Declare(
    benchmark
    URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    URL_HASH SHA256=6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce
    DOWNLOAD_EXTRACT_TIMESTAMP FALSE)
  message(STATUS "mora: no Google Benchmark installed, downloading 1.8.3")
  FetchContent_MakeAvailable(benchmark)
  set_target_properties(
    benchmark PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
                         "$<TARGET_PROPERTY:benchmark,INTERFACE_INCLUDE_DIRECTORIES>")
endfunction()

# Defines CLI11::CLI11.
function(mora_require_cli11)
  if(NOT TARGET CLI11::CLI11)
    find_package(CLI11 CONFIG QUIET GLOBAL)
  endif()
  if(TARGET CLI11::CLI11)
    return()
  endif()

  mora_fetch_headers(
    mora_cli11 "CLI11 2.3.2" CLI11::CLI11 /include
    https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.3.2.tar.gz
    aac0ab42108131ac5d3344a9db0fdf25c4db652296641955720a4fbe52334e22)
endfunction()
