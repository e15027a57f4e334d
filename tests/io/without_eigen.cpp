// SPDX-License-Identifier: MIT
// Files cost nobody Eigen's compile time.
#include <mora/io/json_lines.hpp>
#include <mora/io/sharded_tensors.hpp>
#include <mora/io/sharded_writer.hpp>
#include <mora/io/text_file.hpp>
#include <mora/io/write_token_file.hpp>

#if defined(EIGEN_WORLD_VERSION)
#error "a header of io includes Eigen"
#endif
