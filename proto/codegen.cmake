# The contracts -> C, into the build folder: one struct per message by protoc-c, and one
# FileDescriptorSet of all contracts for gRPC reflection. Sets MOERANK_PROTO_SOURCES and
# MOERANK_PROTO_DIR.
#
# The structs come from a copy of each .proto in which
#   - `string` says `bytes`: the same on the wire, but protobuf-c hands strings out as
#     NUL-terminated char*, so that an id holding a NUL byte would silently become another id;
#   - FeedbackRequest's events are `bytes` too: one bad event is then rejected by itself, and the
#     good ones go on as they came.
# The descriptors are made from the contracts as they stand.

if(CMAKE_SCRIPT_MODE_FILE AND DO STREQUAL "copy")
  file(READ ${IN} text)
  string(REGEX REPLACE "([ {\n])string ([a-z_]+ = )" "\\1bytes \\2" text "${text}")
  string(REPLACE "repeated Event events" "repeated bytes events" text "${text}")
  file(WRITE ${OUT} "${text}")
  return()
elseif(CMAKE_SCRIPT_MODE_FILE AND DO STREQUAL "embed")
  file(READ ${IN} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  file(WRITE ${OUT} "#include <stddef.h>\nextern const unsigned char rpc_descriptor_set[];\n"
    "extern const size_t rpc_descriptor_set_bytes;\n"
    "const unsigned char rpc_descriptor_set[] = {\n${hex}};\n"
    "const size_t rpc_descriptor_set_bytes = sizeof rpc_descriptor_set;\n")
  return()
endif()

find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_C protoc-c REQUIRED)
# health and reflection as published (Debian: grpc-proto)
find_path(GRPC_PROTO_DIR grpc/health/v1/health.proto PATHS /usr/share/grpc-proto REQUIRED)

set(MOERANK_PROTO_DIR ${CMAKE_BINARY_DIR}/proto_gen)
set(MOERANK_PROTO_SOURCES)
set(contracts moerank.proto grpc/health/v1/health.proto grpc/reflection/v1alpha/reflection.proto)
set(originals)
foreach(contract ${contracts})
  set(original ${GRPC_PROTO_DIR}/${contract})
  if(contract STREQUAL "moerank.proto")
    set(original ${CMAKE_CURRENT_LIST_DIR}/${contract})
  endif()
  list(APPEND originals ${original})
  string(REPLACE ".proto" "" stem ${MOERANK_PROTO_DIR}/${contract})
  get_filename_component(folder ${stem} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(
    OUTPUT ${stem}.pb-c.c ${stem}.pb-c.h
    BYPRODUCTS ${stem}.proto
    COMMAND ${CMAKE_COMMAND} -DDO=copy -DIN=${original} -DOUT=${stem}.proto
      -P ${CMAKE_CURRENT_LIST_FILE}
    COMMAND ${PROTOC_C} -I ${MOERANK_PROTO_DIR} --c_out=${MOERANK_PROTO_DIR} ${stem}.proto
    DEPENDS ${original} ${CMAKE_CURRENT_LIST_FILE}
    COMMENT "protoc-c ${contract}" VERBATIM)
  list(APPEND MOERANK_PROTO_SOURCES ${stem}.pb-c.c)
endforeach()

set(descriptors ${MOERANK_PROTO_DIR}/descriptors)
add_custom_command(
  OUTPUT ${descriptors}.c
  BYPRODUCTS ${descriptors}.pb
  COMMAND ${PROTOC} -I ${CMAKE_CURRENT_LIST_DIR} -I ${GRPC_PROTO_DIR} --include_imports
    --descriptor_set_out=${descriptors}.pb ${contracts}
  COMMAND ${CMAKE_COMMAND} -DDO=embed -DIN=${descriptors}.pb -DOUT=${descriptors}.c
    -P ${CMAKE_CURRENT_LIST_FILE}
  DEPENDS ${originals} ${CMAKE_CURRENT_LIST_FILE}
  COMMENT "protoc descriptors" VERBATIM)
list(APPEND MOERANK_PROTO_SOURCES ${descriptors}.c)

# not our style, not our warnings
set_source_files_properties(${MOERANK_PROTO_SOURCES} PROPERTIES COMPILE_OPTIONS -w)
