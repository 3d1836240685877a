#!/usr/bin/env bash
# Build llama.cpp's llama-server for tests/real, once, into a cache outside the checkout.
#
# The source is what the sdist of llama-cpp-python carries on PyPI, pinned by version and hash: no other
# host is asked, and nothing is installed on the machine. Five to ten minutes on two cores, nothing when the
# binary is there. Progress goes to stderr, the binary's path to stdout.
#
#   K9_LLAMA_SERVER  a binary to use instead; then nothing is built
#   K9_CACHE_DIR     default ${XDG_CACHE_HOME:-~/.cache}/k9
#   PYTHON, JOBS     default python3, and as many as there are cores
set -euo pipefail

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

if [[ -n ${K9_LLAMA_SERVER:-} ]]; then
    [[ -x $K9_LLAMA_SERVER ]] && echo "$K9_LLAMA_SERVER" && exit
    echo "K9_LLAMA_SERVER names $K9_LLAMA_SERVER, which is no program. Correct it or unset it." >&2
    exit 1
fi

home=${K9_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/k9}/llama-server/$version
binary=$home/llama-server
[[ -x $binary ]] && echo "$binary" && exit

compiler=${CXX:-c++}
if ! command -v "$compiler" >/dev/null; then
    echo "llama-server is built with a C++ compiler, and $compiler is not here: apt-get install g++" >&2
    exit 1
fi

mkdir -p "$home"
work=$(mktemp -d "$home/build.XXXXXX") # beside the result, so that the last step is one rename
trap 'rm -rf "$work"' EXIT
log=$work/log
started=$SECONDS

say() { echo "llama-server $version: $*" >&2; }

run() {
    "$@" >>"$log" 2>&1 && return
    say "failed: $1 ...; its last words:"
    tail -n 20 "$log" >&2
    exit 1
}

say "building once into $home (five to ten minutes on two cores)"
run "${PYTHON:-python3}" -m venv "$work/venv"
export PATH=$work/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1

echo 'cmake_minimum_required(VERSION 3.19)' >"$work/probe.cmake"
tools=()
cmake -P "$work/probe.cmake" >/dev/null 2>&1 || tools+=(cmake)
command -v ninja >/dev/null || tools+=(ninja)
((${#tools[@]} == 0)) || run pip install --quiet "${tools[@]}"

echo "llama-cpp-python==$version --hash=sha256:$sha256" >"$work/source.txt"
run pip download --quiet --no-deps --no-binary llama-cpp-python --require-hashes -r "$work/source.txt" -d "$work"
mkdir "$work/source"
run tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work/source" --strip-components=1

# A unity build halves the time. Three targets hold names that collide when their files are joined.
cat >"$work/unity.cmake" <<'CMAKE'
foreach(target mtmd ggml-cpu llama-common)
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY [[${CMAKE_SOURCE_DIR}]]
    CALL set_target_properties ${target} PROPERTIES UNITY_BUILD OFF)")
endforeach()
CMAKE

# Hardly optimised: models of some kilobytes are quick anyway. No interface: its parts come from a hub.
options=(
    -DCMAKE_BUILD_TYPE=None -DBUILD_SHARED_LIBS=OFF
    "-DCMAKE_C_FLAGS=-O1 -g0 -DNDEBUG" "-DCMAKE_CXX_FLAGS=-O0 -g0 -DNDEBUG"
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=16 "-DCMAKE_PROJECT_INCLUDE=$work/unity.cmake"
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
    -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF
)
run cmake -S "$work/source/vendor/llama.cpp" -B "$work/out" -G Ninja "${options[@]}"

say "compiling"
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
NINJA_STATUS='%p ' ninja -C "$work/out" -j "$jobs" llama-server 2>&1 | tee -a "$log" | while read -r part _; do
    percent=${part%\%}
    [[ $percent =~ ^[0-9]+$ ]] || continue
    if ((percent >= ${next:=20})); then
        say "$percent %"
        next=$((percent - percent % 20 + 20))
    fi
done || run false ninja

run "$work/out/bin/llama-server" --version
mv "$work/out/bin/llama-server" "$binary"
say "done in $((SECONDS - started)) s"
echo "$binary"
