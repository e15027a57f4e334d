// SPDX-License-Identifier: MIT
// A thread with a stack of 256 KiB can do everything, at sizes where working memory on the stack
// would take more.
#include <pthread.h>

#include <functional>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

void on_small_stack(std::function<void()> work) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 * 1024), 0);
  pthread_t thread;
  const auto run = [](void* function) -> void* {
    (*static_cast<std::function<void()>*>(function))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &work), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

TYPED_TEST(EveryLayer, NeedsLittleStack) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(2000, 1500, 8);
  const auto x = random_numbers<T>(3, 2000);
  on_small_stack([&] {
    typename TypeParam::Saved saved;
    const mora::Matrix<T> y = layer.forward(x, saved);
    (void)layer.backward(y, saved);
    mora::AdamW<T>().step(layer);
    (void)layer.forward(x.topRows(1));
    (void)layer.update();
    layer.merge();
    (void)layer.forward(x);
  });
}

}  // namespace
}  // namespace mora_tests
