# Everything gpumod uses comes from the distribution: Debian 12 names are in ./dev.
#
# Its C++ libraries are linked into the programs where the distribution has archives of them: loading and relocating
# them took longer than `status` does. What the system may have to mend or exchange stays shared: libc, libsystemd.

option(GPUMOD_ARCHIVES "Link the C++ libraries into the programs" ON)

# gpumod_use_archive(TARGET FILE): the imported target becomes the archive, if there is one.
function(gpumod_use_archive target file)
  if(NOT GPUMOD_ARCHIVES)
    return()
  endif()
  string(MAKE_C_IDENTIFIER "GPUMOD_${file}" variable)
  find_library(${variable} ${file})
  mark_as_advanced(${variable})
  if(${variable})
    foreach(configuration "" _NONE _RELEASE _RELWITHDEBINFO _DEBUG)
      set_target_properties(${target} PROPERTIES IMPORTED_LOCATION${configuration} "${${variable}}")
    endforeach()
  endif()
endfunction()

set(Boost_USE_STATIC_LIBS ${GPUMOD_ARCHIVES})
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json url)
find_package(fmt REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(SQLiteCpp REQUIRED)
find_package(tl-expected REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
# Its headers alone: host/web.cpp loads the library when it is needed (docs/decisions/0008).
pkg_check_modules(CURL REQUIRED libcurl)
add_library(gpumod_curl_headers INTERFACE)
target_include_directories(gpumod_curl_headers SYSTEM INTERFACE ${CURL_INCLUDE_DIRS})
if(GPUMOD_TESTS)
  find_package(GTest REQUIRED)
endif()

if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()
get_target_property(yaml_cpp yaml-cpp::yaml-cpp ALIASED_TARGET)
if(NOT yaml_cpp)
  set(yaml_cpp yaml-cpp::yaml-cpp)
endif()
gpumod_use_archive(${yaml_cpp} libyaml-cpp.a)
if(TARGET SQLite::SQLite3)
  gpumod_use_archive(SQLite::SQLite3 libsqlite3.a)
endif()

# Debian has no archive of fmt, but its headers hold the whole implementation: one file makes one of them, if this
# version can be had that way. Header-only everywhere lost: it would be compiled a hundred times.
add_library(gpumod_fmt INTERFACE)
target_link_libraries(gpumod_fmt INTERFACE fmt::fmt)
if(GPUMOD_ARCHIVES)
  if(NOT DEFINED GPUMOD_FMT_FROM_HEADERS)
    try_compile(GPUMOD_FMT_FROM_HEADERS "${CMAKE_BINARY_DIR}/fmt_check"
      SOURCES "${CMAKE_CURRENT_LIST_DIR}/fmt_archive.cpp" "${CMAKE_CURRENT_LIST_DIR}/fmt_check.cpp"
      CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON)
    message(STATUS "fmt from its headers: ${GPUMOD_FMT_FROM_HEADERS}")
  endif()
  if(GPUMOD_FMT_FROM_HEADERS)
    add_library(gpumod_fmt_archive STATIC "${CMAKE_CURRENT_LIST_DIR}/fmt_archive.cpp")
    set_target_properties(gpumod_fmt PROPERTIES INTERFACE_LINK_LIBRARIES gpumod_fmt_archive)
  endif()
endif()

# Definitions that change the ABI or the precompiled header must be the same everywhere.
add_compile_definitions(BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_NO_TS_EXECUTORS)
