# gpumod_room(NAME KNOWS room… LINKS library… [APART folder…]) declares one room of the house.
#
# A room is a folder under src/ and a static library. Its headers are reachable as "NAME/file.h" only through a
# directory that belongs to that library, so a room which does not link another cannot even include it. KNOWS is
# checked against the order of the rooms: a room may know those above it, and no other. APART names subfolders that are
# no part of the room's library, but something of their own: src/CMakeLists.txt says what.

set(GPUMOD_ROOM_ORDER base model formats catalog fit switching engines host store control sim verbs gateway faces)

function(gpumod_room name)
  cmake_parse_arguments(ROOM "" "" "KNOWS;LINKS;APART" ${ARGN})
  list(FIND GPUMOD_ROOM_ORDER ${name} own_place)
  if(own_place EQUAL -1)
    message(FATAL_ERROR "room '${name}' is not in GPUMOD_ROOM_ORDER")
  endif()
  foreach(known IN LISTS ROOM_KNOWS)
    list(FIND GPUMOD_ROOM_ORDER ${known} place)
    if(place EQUAL -1 OR NOT place LESS own_place)
      message(FATAL_ERROR "room '${name}' may not know '${known}': it is not above it")
    endif()
  endforeach()

  set(folder "${CMAKE_CURRENT_SOURCE_DIR}/${name}")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${folder}/*.cpp")
  foreach(apart IN LISTS ROOM_APART)
    list(FILTER sources EXCLUDE REGEX "^${folder}/${apart}/")
  endforeach()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|main)\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")

  set(door "${CMAKE_BINARY_DIR}/doors/${name}")
  file(MAKE_DIRECTORY "${door}")
  file(CREATE_LINK "${folder}" "${door}/${name}" SYMBOLIC)

  set(target gpumod_${name})
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} PUBLIC "${door}")
  foreach(known IN LISTS ROOM_KNOWS)
    target_link_libraries(${target} PUBLIC gpumod_${known})
  endforeach()
  target_link_libraries(${target} PUBLIC ${ROOM_LINKS})
  gpumod_use_pch(${target})

  if(GPUMOD_TESTS AND tests)
    gpumod_test(${target}_test SOURCES ${tests} LINKS ${target})
  endif()
endfunction()

# One precompiled header for the whole house, built once with gpumod_base.
function(gpumod_use_pch target)
  if(NOT GPUMOD_PCH)  # the files count on its headers all the same
    target_compile_options(${target} PRIVATE -include "${CMAKE_SOURCE_DIR}/cmake/precompiled.h")
    return()
  endif()
  if(target STREQUAL "gpumod_base")
    target_precompile_headers(gpumod_base PRIVATE "${CMAKE_SOURCE_DIR}/cmake/precompiled.h")
  else()
    target_precompile_headers(${target} REUSE_FROM gpumod_base)
  endif()
endfunction()

# What the sanitizer presets build: every room's own tests, and nothing that needs the outside.
add_custom_target(unit_tests)

# gpumod_test(NAME SOURCES … LINKS … [LABELS …]): a GoogleTest binary whose cases ctest knows one by one.
function(gpumod_test name)
  cmake_parse_arguments(TEST "" "" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name} PRIVATE ${TEST_LINKS} GTest::gtest GTest::gmock GTest::gtest_main)
  gpumod_use_pch(${name})
  if(NOT TEST_LABELS)
    set(TEST_LABELS unit)
    add_dependencies(unit_tests ${name})
  endif()
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT 120)
endfunction()
