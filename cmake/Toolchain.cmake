# How everything here is compiled: one place for the language, the warnings, the sanitizers.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

# The same for libraries and programs, so that one precompiled header serves both.
set(CMAKE_POSITION_INDEPENDENT_CODE OFF)
add_compile_options(-fPIE)
add_link_options($<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)

option(GPUMOD_TESTS "Build the tests" ON)
# Off in the sanitizer presets alone: GCC 12 reports accesses out of bounds in instrumented code that has none. What is
# compiled there is compiled with warnings as errors in release and dev, too.
option(GPUMOD_WERROR "Warnings are errors" ON)
option(GPUMOD_PCH "Use a precompiled header" ON)
option(GPUMOD_FUZZ "Build the fuzz targets (needs clang)" OFF)
set(GPUMOD_SANITIZE "" CACHE STRING "Sanitizers for every target: '', 'address,undefined' or 'thread'")

add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these falsely inside the standard library, Boost and coroutines once they are inlined.
  add_compile_options(-Wno-maybe-uninitialized -Wno-dangling-pointer -Wno-mismatched-new-delete)
else()
  add_compile_options(-Wno-gnu-statement-expression)
endif()
if(GPUMOD_WERROR)
  add_compile_options(-Werror)
endif()
if(GPUMOD_SANITIZE)
  add_compile_options(-fsanitize=${GPUMOD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${GPUMOD_SANITIZE})
  if(GPUMOD_SANITIZE MATCHES "undefined")
    # A third of the compile time, for what the address sanitizer or the compiler finds as well.
    add_compile_options(-fno-sanitize=null,vptr,object-size,nonnull-attribute,returns-nonnull-attribute)
  endif()
  if(GPUMOD_SANITIZE STREQUAL "thread")
    # Fences, as Boost.Asio uses them, are not modelled by ThreadSanitizer; GCC says so for each one.
    add_compile_options(-Wno-tsan)
  endif()
endif()

if(GPUMOD_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(GPUMOD_CCACHE ccache)
if(GPUMOD_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${GPUMOD_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)
  endif()
endif()

find_program(GPUMOD_MOLD mold)
if(GPUMOD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
