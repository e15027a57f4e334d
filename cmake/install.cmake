include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Nothing here depends on the processor, hence share/ rather than lib/.
set(mora_config_dir "${CMAKE_INSTALL_DATADIR}/cmake/mora")
set(mora_pkgconfig_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")

install(TARGETS mora EXPORT mora-targets FILE_SET HEADERS)
install(EXPORT mora-targets NAMESPACE mora:: DESTINATION "${mora_config_dir}")
if(MORA_IO)
  # Apart, so that who has no nlohmann/json can use the rest.
  install(TARGETS mora_io EXPORT mora-io-targets FILE_SET HEADERS)
  install(EXPORT mora-io-targets NAMESPACE mora:: DESTINATION "${mora_config_dir}")
endif()

configure_package_config_file(
  cmake/mora-config.cmake.in "${PROJECT_BINARY_DIR}/mora-config.cmake"
  INSTALL_DESTINATION "${mora_config_dir}" NO_SET_AND_CHECK_MACRO)
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/mora-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/mora-config.cmake"
              "${PROJECT_BINARY_DIR}/mora-config-version.cmake"
        DESTINATION "${mora_config_dir}")

# Relative to the .pc file itself, so that the installed tree can be moved.
cmake_path(ABSOLUTE_PATH mora_pkgconfig_dir BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}"
           OUTPUT_VARIABLE mora_pkgconfig_full)
file(RELATIVE_PATH mora_pc_include "${mora_pkgconfig_full}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
configure_file(cmake/mora.pc.in "${PROJECT_BINARY_DIR}/mora.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/mora.pc" DESTINATION "${mora_pkgconfig_dir}")
