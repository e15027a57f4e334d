# cmake -P finetune_kills.cmake <folder of the programs> <folder> <number of kills>
# A run that is killed at random moments, and goes on each time, loses no step that was saved and ends in the
# same adapter as one that is left alone, bit for bit.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(finetune "${CMAKE_ARGV3}/finetune")
set(out "${CMAKE_ARGV4}")
set(wanted "${CMAKE_ARGV5}")
file(REMOVE_RECURSE "${out}")
file(MAKE_DIRECTORY "${out}")
string(RANDOM LENGTH 9 ALPHABET 123456789 seed)
message(STATUS "seed ${seed}")
string(RANDOM LENGTH 1 ALPHABET 0 RANDOM_SEED ${seed} digit)  # sets the seed

file(WRITE "${out}/config.json" [=[{"model_type": "llama", "vocab_size": 259, "hidden_size": 32,
"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
"rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false}]=])
string(REPEAT "All work and no play makes a dull text. " 30 text)
file(WRITE "${out}/text.txt" "${text}")
set(run "${finetune}" "${out}/config.json" "${out}/text.txt")
set(options --length 64 --batch 4 --steps 40 --rank 2 --dropout 0.1 --seed 3 --every 1)
set(ENV{OMP_NUM_THREADS} 1)

execute_process(COMMAND ${run} "${out}/alone" ${options} --run "${out}/run_alone"
                OUTPUT_QUIET ERROR_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(SHA256 "${out}/alone/adapter_model.safetensors" alone)

# It waits until the process is dead; newer CMake's TIMEOUT does not, so that the next run would begin beside it.
find_program(timeout timeout REQUIRED)

set(kills 0)
set(turn 0)
while(kills LESS wanted)
  math(EXPR turn "${turn} + 1")
  set(folder "${out}/turn_${turn}")
  set(newest -1)
  set(most 200)
  while(NOT EXISTS "${folder}/adapter_config.json")
    # Milliseconds: at first up to more than half of a run, longer where nothing is saved in that time.
    string(RANDOM LENGTH 4 ALPHABET 0123456789 random)
    math(EXPR limit "(1${random} - 10000) * ${most} / 10000 + 3")
    math(EXPR seconds "${limit} / 1000")
    math(EXPR thousandths "${limit} % 1000 + 1000")
    string(SUBSTRING "${thousandths}" 1 3 thousandths)
    execute_process(COMMAND "${timeout}" --foreground --signal=KILL ${seconds}.${thousandths}
                            ${run} "${folder}" ${options} --run "${out}/run_${turn}" --resume
                    RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE said)
    if(said MATCHES "going on after step ([0-9]+)" AND NOT CMAKE_MATCH_1 STREQUAL newest)
      message(FATAL_ERROR "went on after step ${CMAKE_MATCH_1}, but ${newest} was saved")
    elseif(newest GREATER -1 AND said MATCHES "beginning")
      message(FATAL_ERROR "began again, but step ${newest} was saved")
    endif()
    if(result EQUAL 137)
      math(EXPR kills "${kills} + 1")
    elseif(NOT result MATCHES "^(0|124)$") # 124: it ended as the kill was on its way
      message(FATAL_ERROR "after ${kills} kills: ${result}: ${said}")
    endif()
    set(before ${newest})
    file(GLOB saved LIST_DIRECTORIES true "${out}/run_${turn}/ckpt-*")
    foreach(checkpoint IN LISTS saved)
      if(checkpoint MATCHES "/ckpt-([0-9]+)$" AND CMAKE_MATCH_1 GREATER newest)
        set(newest ${CMAKE_MATCH_1})
      endif()
    endforeach()
    if(newest EQUAL before AND most LESS 20000)
      math(EXPR most "${most} * 2")
    endif()
  endwhile()
  file(SHA256 "${folder}/adapter_model.safetensors" killed)
  if(NOT killed STREQUAL alone)
    message(FATAL_ERROR "after ${kills} kills another adapter than without")
  endif()
endwhile()
message(STATUS "${kills} kills in ${turn} runs, all of which end in the same adapter")
