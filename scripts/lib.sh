# shellcheck shell=bash
# Shared by the scripts: packages, tools, and the choice of preset and number of jobs.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit 1

note() { printf -- '-- %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

build_packages=(g++ cmake ninja-build pkg-config libeigen3-dev libgtest-dev libbenchmark-dev
  nlohmann-json3-dev libcli11-dev)

has_package() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

apt_get() {
  local command=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a
    apt-get -y -q -o DPkg::Lock::Timeout=300 "$@")
  if [[ $EUID -ne 0 ]]; then
    # -n: fail rather than ask for a password.
    command=(sudo -n "${command[@]}")
  fi
  "${command[@]}" </dev/null
}

# install_packages <package>...: installs those that are missing. A failure is not the end: what is
# really needed is checked afterwards, and it may be there without the package.
install_packages() {
  local package missing=()
  if ! have apt-get || ! have dpkg-query; then
    note "no apt-get here; please install what Debian calls: $*"
    return 0
  fi
  for package in "$@"; do
    has_package "$package" || missing+=("$package")
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    return 0
  fi
  if [[ $EUID -ne 0 ]] && ! { have sudo && sudo -n true 2>/dev/null; }; then
    note "cannot become root without a password; please run:"
    note "  sudo apt-get install ${missing[*]}"
    return 0
  fi
  note "installing: ${missing[*]}"
  apt_get update || note "not every list of packages could be had"
  apt_get install --no-install-recommends "${missing[@]}" && return 0
  # One that this release lacks must not keep out the others.
  for package in "${missing[@]}"; do
    apt_get install -o DPkg::Lock::Timeout=10 --no-install-recommends "$package" ||
      note "$package could not be installed"
  done
}

cmake_is_new_enough() {
  local version
  version="$(cmake --version 2>/dev/null | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')"
  [[ -n "$version" && "$(printf '3.24\n%s\n' "$version" | sort -V | head -n 1)" == 3.24 ]]
}

# Ubuntu 22.04 has CMake 3.22; a newer one then goes into a private folder of the build tree.
require_cmake() {
  local venv="$root/build/cmake"
  cmake_is_new_enough && return 0
  if [[ -d "$venv/bin" ]]; then
    PATH="$venv/bin:$PATH"
    hash -r
    cmake_is_new_enough && return 0
  fi
  note "CMake 3.24 or later is needed; installing one into $venv"
  install_packages python3-venv
  if ! { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q 'cmake>=3.28,<4'; }; then
    die "no CMake 3.24 or later: install one and put it first on the PATH"
  fi
  PATH="$venv/bin:$PATH"
  hash -r
  cmake_is_new_enough || die "the CMake in $venv does not work"
}

# Ubuntu 22.04's g++ is 11; 12 is there beside it.
require_compiler() {
  local compiler major
  read -r compiler _ <<<"${CXX:-c++}"
  have "$compiler" || die "a C++20 compiler is missing (Debian package g++)"
  major="$(echo __clang_major__ __GNUC__ | "$compiler" -E -P -x c++ - 2>/dev/null || true)"
  if [[ "$major" =~ ^__clang_major__\ ([0-9]+) ]] && ((BASH_REMATCH[1] < 12)); then
    [[ -z "${CXX:-}" ]] || die "$CXX is g++ ${BASH_REMATCH[1]}; 12 or later is needed"
    have g++-12 || install_packages g++-12
    have g++-12 || die "g++ 12 or later is needed, this one is ${BASH_REMATCH[1]}"
    export CXX=g++-12
  elif [[ "$major" =~ ^([0-9]+) ]]; then
    ((BASH_REMATCH[1] >= 14)) || die "$compiler is clang ${BASH_REMATCH[1]}; 14 or later is needed"
    links_openmp "$compiler" || install_packages libomp-dev
    links_openmp "$compiler" || die "$compiler cannot link with -fopenmp (Debian package libomp-dev)"
  fi
}

links_openmp() { echo 'int main() {}' | "$1" -fopenmp -x c++ - -o /dev/null 2>/dev/null; }

# Everything to configure, build and test.
set_up() {
  install_packages "${build_packages[@]}"
  require_cmake
  have ninja || die "ninja is missing (Debian package ninja-build)"
  require_compiler
  # Understood by cmake --build and ctest alike.
  CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(job_count)}"
  CTEST_PARALLEL_LEVEL="${CTEST_PARALLEL_LEVEL:-$CMAKE_BUILD_PARALLEL_LEVEL}"
  export CMAKE_BUILD_PARALLEL_LEVEL CTEST_PARALLEL_LEVEL
}

# One job per processor, but no more than memory allows: compiling Eigen's templates takes up to
# 2.2 GB.
job_count() {
  local jobs available limit
  jobs="$(nproc 2>/dev/null || echo 1)"
  available="$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)"
  limit="$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)"
  if [[ "$limit" =~ ^[0-9]+$ ]] && ((limit / 1048576 < ${available:-999999})); then
    available=$((limit / 1048576))
  fi
  if [[ -n "$available" ]] && ((available / 2200 < jobs)); then
    jobs=$((available / 2200))
  fi
  echo $((jobs < 1 ? 1 : jobs))
}

# preset_here <preset>: release or test, which need an x86-64 processor with AVX2 and FMA, or their
# portable variant.
preset_here() {
  if [[ "$(uname -m)" == x86_64 ]] && grep -qw avx2 /proc/cpuinfo 2>/dev/null &&
    grep -qw fma /proc/cpuinfo; then
    echo "$1"
  else
    echo "$1-portable"
  fi
}

# build_preset <preset> [<option of cmake --build>...]
build_preset() {
  local preset="$1"
  shift
  cmake --preset "$preset"
  cmake --build --preset "$preset" "$@"
}

# test_preset <preset>: the preset makes ctest fail when it finds no tests.
test_preset() {
  ctest --preset "$1"
}

python_with_matplotlib() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import matplotlib' 2>/dev/null; then
      echo "$python"
      return 0
    fi
  done
  return 1
}

require_matplotlib() {
  python_with_matplotlib >/dev/null && return 0
  install_packages python3 python3-matplotlib
  python_with_matplotlib >/dev/null ||
    die "no python3 with matplotlib (Debian package python3-matplotlib)"
}

# draw <script> <results folder>
draw() { MPLBACKEND=Agg "$(python_with_matplotlib)" "$root/scripts/$1" "$2" >&2; }
