# unpack(archive folder): what an archive of the source tree holds, into a folder
# of the build tree; again when the archive is newer than what was unpacked.
function(unpack archive folder)
  file(RELATIVE_PATH name "${PROJECT_SOURCE_DIR}" "${archive}")
  set(stamp "${CMAKE_BINARY_DIR}/unpacked/${name}")
  if("${archive}" IS_NEWER_THAN "${stamp}")
    get_filename_component(stamp_folder "${stamp}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}" "${stamp_folder}")
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${folder}" TOUCH)
    file(TOUCH "${stamp}")
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${archive}")
endfunction()
