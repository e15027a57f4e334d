// SPDX-License-Identifier: MIT
#include "support/llama.hpp"

#include <mora/mora.hpp>

template class mora::Llama<float>;
template class mora::Llama<double>;

namespace mora_tests {

template <class T>
void attach(Llama<T>& model, const std::string& name, Kind kind, const Targets& targets,
            double dropout) {
  Random random(5);
  const auto with = [&](const auto& settings) {
    model.attach(name, settings, targets, random.generator(), dropout);
  };
  // Scales that are not 1 show where they are missing.
  switch (kind) {
    case Kind::lora: return with(mora::LoraSettings{.rank = 2, .alpha = 3.0});
    case Kind::rotation: return with(mora::MoraSettings<>{.rank = 2, .scale = 0.75});
    case Kind::sharing: return with(mora::MoraSettings<mora::Sharing>{.rank = 2, .scale = 0.75});
    case Kind::dora:
      return with(mora::DoraSettings<mora::LoraSettings>{.direction = {.rank = 2, .alpha = 3.0}});
    case Kind::hira: return with(mora::HiraSettings{.rank = 2});
    case Kind::miss: return with(mora::MissSettings{.rank = 3});
    case Kind::lokr: return with(mora::LokrSettings{.rank = 2, .alpha = 3.0});
    case Kind::asylora:
      return with(mora::LoraSettings{
          .rank = 2, .alpha = 3.0, .init = mora::LoraInit::orthonormal, .train_a = false});
    case Kind::full: return with(mora::FullSettings());
  }
}

template void attach(Llama<float>&, const std::string&, Kind, const Targets&, double);
template void attach(Llama<double>&, const std::string&, Kind, const Targets&, double);

}  // namespace mora_tests
