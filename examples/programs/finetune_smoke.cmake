# cmake -P finetune_smoke.cmake <folder of the programs> <folder>
# Trains from every form of data, goes on from a checkpoint bit for bit, and generates with the result.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(programs "${CMAKE_ARGV3}")
set(out "${CMAKE_ARGV4}")
file(REMOVE_RECURSE "${out}")
file(MAKE_DIRECTORY "${out}")
include("${CMAKE_CURRENT_LIST_DIR}/expect.cmake")

# That a file was not written over.
function(require_content name expected)
  file(READ "${out}/${name}" found)
  if(NOT found STREQUAL expected)
    message(FATAL_ERROR "${name} was written over:\n${found}")
  endif()
endfunction()

set(config [=[{"model_type": "llama", "vocab_size": 259, "hidden_size": 16, "intermediate_size": 24,
"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"hidden_act": "silu", "tie_word_embeddings": false}]=])
file(WRITE "${out}/config.json" "${config}")
string(REPEAT "All work and no play makes a dull text. " 20 text)
file(WRITE "${out}/text.txt" "${text}")
string(REPEAT "{\"q\": \"2 + 2 = \", \"a\": \"4\"}\n" 6 lines)
file(WRITE "${out}/lines.jsonl" "${lines}")
string(ASCII 1 1 2 1 tokens)  # 257 and 258, as no zero can be written
string(REPEAT "${tokens}" 20 tokens)
file(WRITE "${out}/tokens.u16" "${tokens}")

foreach(program IN ITEMS finetune generate)
  expect(0 "Usage" ${program} --help)
  expect(2 "required" ${program})
endforeach()

# A run that goes on from its checkpoint of step 4 ends in the same adapter and the same log.
set(model "${out}/config.json")
set(short --length 32 --batch 3 --steps 8 --warm-up 2 --seed 5)
set(run finetune "${model}" "${out}/text.txt")
set(options ${short} --dropout 0.1 --rank 2 --run "${out}/run" --every 4 --log "${out}/log.csv"
            --evaluate "${out}/text.txt" --evaluate-every 4)
expect(0 "parameters train, 25 examples.*4,held out,5.5.*8,held out,5.5" ${run} "${out}/first" ${options})
file(READ "${out}/log.csv" log)
list(REMOVE_ITEM options --log "${out}/log.csv")
expect(1 "first: is there already; name" ${run} "${out}/first" ${options})
expect(1 "ckpt-8: is there already; go on" ${run} "${out}/second" ${options})
list(APPEND options --log "${out}/log.csv")
expect(1 "log.csv: is there already; name" ${run} "${out}/second" ${options})
file(REMOVE_RECURSE "${out}/run/ckpt-8")
expect(1 "'method': expected 'lora', found 'rotation'" ${run} "${out}/second" ${options} --method lora
       --resume)
expect(1 "'learning rate': expected '0.5', found" ${run} "${out}/second" ${options} --learning-rate 0.5
       --resume)
expect(1 "'scale': expected '2', found 'none'" ${run} "${out}/second" ${options} --scale 2 --resume)
# A log that is none, or has a row that is none, is left as it is.
foreach(case IN ITEMS "text;line 1: expected the header" "${log}x,1\n;line 10: expected a row")
  list(GET case 0 content)
  list(GET case 1 fault)
  file(WRITE "${out}/other.csv" "${content}")
  list(TRANSFORM options REPLACE "log.csv" "other.csv" OUTPUT_VARIABLE others)
  expect(1 "other.csv, ${fault}" ${run} "${out}/second" ${others} --resume)
  require_content(other.csv "${content}")
endforeach()
expect(0 "going on after step 4" ${run} "${out}/second" ${options} --resume)
file(READ "${out}/log.csv" second_log)
if(NOT second_log STREQUAL log)
  message(FATAL_ERROR "the log of the run that went on differs:\n${log}\n${second_log}")
endif()
foreach(file IN ITEMS adapter_config.json adapter_model.safetensors)
  file(SHA256 "${out}/first/${file}" first)
  file(SHA256 "${out}/second/${file}" second)
  if(NOT first STREQUAL second)
    message(FATAL_ERROR "${file} of the run that went on differs")
  endif()
endforeach()
# One that was killed among its results keeps those that it gives again, and no others.
expect(0 "going on after step 8" ${run} "${out}/second" ${options} --merged "${out}/second_merged" --resume)
if(NOT EXISTS "${out}/second_merged/config.json")
  message(FATAL_ERROR "no second_merged")
endif()
file(APPEND "${out}/second/adapter_config.json" " ")
expect(1 "second: is there already, and is not" ${run} "${out}/second" ${options} --resume)
# Other data, or a checkpoint of another version, which stays.
string(REPLACE "dull" "full" other_text "${text}")
file(WRITE "${out}/text.txt" "${other_text}")
expect(1 "'data's file': expected .*its own settings alone" ${run} "${out}/third" ${options} --resume)
file(WRITE "${out}/text.txt" "${text}")
file(READ "${out}/run/ckpt-8/MANIFEST" manifest)
string(REPLACE "version 1" "version 2" manifest "${manifest}")
file(WRITE "${out}/run/ckpt-8/MANIFEST" "${manifest}")
expect(1 "version 1', found 'mora checkpoint, version 2'" ${run} "${out}/third" ${options} --resume)
foreach(step IN ITEMS 4 8)
  file(WRITE "${out}/run/ckpt-${step}/MANIFEST" "nothing")
endforeach()
expect(1 "no checkpoint in it is whole" ${run} "${out}/third" ${options} --resume)
expect(1 "--every: expected at least 1, found 0" ${run} "${out}/third" ${short} --run "${out}/other_run" --every 0)
if(EXISTS "${out}/third")
  message(FATAL_ERROR "third was made")
endif()

# Every form and kind of adapter.
foreach(method IN ITEMS lora rslora asylora dora hira lokr miss full sharing random_sharing truncation
                        covering_rotation)
  set(rank --rank 2)
  if(method STREQUAL full)
    set(rank)
  endif()
  expect(0 "step 8 of 8" finetune "${model}" "${out}/lines.jsonl" "${out}/${method}" ${short} --prompt q
         --response a --method ${method} ${rank} --merged "${out}/merged_${method}")
endforeach()
expect(0 "step 8 of 8" finetune "${out}/full" "${out}/tokens.u16" "${out}/tokens" ${short} --form
       uint16 --targets q_proj,v_proj --method lora)
# A side that the paper's code reads is in its dialect.
expect(0 "step 8 of 8" finetune --targets q_proj,v_proj "${model}" "${out}/text.txt" "${out}/reference" ${short}
       --method rotation --rank 3 --reference-side)
file(READ "${out}/reference/adapter_config.json" found)
if(NOT found MATCHES "\"use_mora\": true")
  message(FATAL_ERROR "not in the paper's dialect:\n${found}")
endif()
expect(1 "--reference-side is for MoRA" ${run} "${out}/x" ${short} --method lora --reference-side)
expect(1 "expected lora, rslora, asylora, dora, hira, lokr, miss, full, sharing, [a-z_, ]*, found loha"
       ${run} "${out}/x" --method loha --length 32)
expect(1 "--length: expected at most max_position_embeddings = 64, found 256" ${run} "${out}/x" --steps 1)
string(REPLACE "hidden_size" "hiden_size" misspelt "${config}")
file(WRITE "${out}/misspelt.json" "${misspelt}")
expect(1 "misspelt.json: expected hidden_size, found none" finetune "${out}/misspelt.json" "${out}/text.txt"
       "${out}/x")
if(EXISTS "${out}/x")
  message(FATAL_ERROR "a folder was made for nothing")
endif()
foreach(method IN ITEMS dora hira lokr)
  expect(1 "--dropout is for" ${run} "${out}/x" --method ${method} --dropout 0.1)
endforeach()
# Results replace their folders, so that nothing else can be in one.
foreach(option IN ITEMS merged run log)
  foreach(place IN ITEMS "./x" "x/" "x/y/z" "y/../x/y")
    expect(1 "--${option}: expected a place outside of OUT" ${run} "${out}/x" ${short} --${option} "${out}/${place}")
  endforeach()
endforeach()
expect(1 "OUT: expected a place outside of --merged" ${run} "${out}/x/y" ${short} --merged "${out}/x")
expect(1 "--log: expected a place outside of --merged" ${run} "${out}/y" ${short} --merged "${out}/x" --log
       "${out}/x/log.csv")
# A place where nothing can be put is known before the training.
file(MAKE_DIRECTORY "${out}/x")
file(CREATE_LINK "${out}/x" "${out}/link" SYMBOLIC)
expect(1 "link.*is there already" ${run} "${out}/link" ${short})
expect(1 "nowhere/log.csv: cannot write: No such file" ${run} "${out}/x" ${short} --log "${out}/nowhere/log.csv")
expect(1 "--links is for a folder" ${run} "${out}/x" ${short} --links)
# Going on from a run that there is not is no reason to begin its log anew.
list(TRANSFORM options REPLACE "/run$" "/other_run" OUTPUT_VARIABLE others)
expect(1 "log.csv: is there already; name" ${run} "${out}/x" ${others} --resume)
require_content(log.csv "${log}")
# A limit of a file's size is an error like any other.
execute_process(COMMAND sh -c "ulimit -f 0; exec \"$@\"" sh "${programs}/finetune" "${model}" "${out}/text.txt"
                        "${out}/x" ${short} --log "${out}/limited.csv"
                RESULT_VARIABLE code OUTPUT_QUIET ERROR_QUIET)
if(NOT code EQUAL 1)
  message(FATAL_ERROR "beyond a limit of a file's size it ended with ${code}")
endif()
file(REMOVE_RECURSE "${out}/x" "${out}/link")
file(MAKE_DIRECTORY "${out}/x")
expect(1 "--alpha is for LoRA" ${run} "${out}/x" --alpha 2)
expect(1 "--scale is for MoRA" ${run} "${out}/x" --scale 2 --method lora)
expect(1 "--scale is for MoRA" ${run} "${out}/x" --scale 2 --method hira)
expect(1 "--alpha is for LoRA" ${run} "${out}/x" --alpha 2 --method miss)
foreach(option IN ITEMS "--rank;2" "--scale;2" "--alpha;2" "--dropout;0.1")
  list(GET option 0 name)
  expect(1 "${name} is for" ${run} "${out}/x" --method full ${option})
endforeach()
foreach(option IN ITEMS "--every;2" "--evaluate-every;2" "--prompt;q" "--response;a")
  list(GET option 0 name)
  expect(1 "${name} is for" ${run} "${out}/x" ${option})
endforeach()
expect(1 "text.txt: is there already" ${run} "${out}/x" ${short} --log "${out}/text.txt")
string(ASCII 255 byte)
expect(1 "model.*expected UTF-8" finetune "${out}/${byte}" "${out}/text.txt" "${out}/x")
expect(1 "data.*expected UTF-8" finetune "${model}" "${out}/${byte}.txt" "${out}/x" --run "${out}/r")
expect(1 "no module is named v_prj" ${run} "${out}/x" ${short} --targets q_proj,v_prj)
expect(2 "requires --run" ${run} "${out}/x" --resume)
expect(0 "no checkpoint in .*, beginning" ${run} "${out}/late" ${short} --run "${out}/none" --resume)
expect(0 "random weights.*6 are cut" finetune "${model}" "${out}/lines.jsonl" "${out}/cut" --length 10 --steps 1
       --prompt q --response a)
expect(1 "tokens.u16 does not say" finetune "${model}" "${out}/tokens.u16" "${out}/x")
expect(1 "line 1.*key 'prompt'" finetune "${model}" "${out}/lines.jsonl" "${out}/x")
expect(1 "nowhere" finetune "${out}/nowhere" "${out}/text.txt" "${out}/x")

# The adapter on its base says what the merged model says.
expect(0 "[^\n]*\n" generate "${out}/full" "2 + 2 = " --most 5)
foreach(method IN ITEMS dora hira lokr miss asylora)
  expect_same_tokens("${out}/merged_${method}|1 50 50|--most|12"
                     "${model}|--adapter|${out}/${method}|--seed|5|1 50 50|--most|12")
endforeach()
expect_same_tokens("${out}/merged_lora|1 50 50|--most|12"
                   "${model}|--adapter|${out}/lora|--seed|5|1 50 50|--most|12")
expect(1 "--keep-small is for a folder" ${run} "${out}/x" --keep-small)
expect(1 "--keep-small is for a folder" generate "${model}" "a" --keep-small)
expect(1 "temperature" generate "${model}" "a" --temperature -1)
foreach(prompt IN ITEMS "a" "1 99999999999" "5 -")
  expect(1 "expected numbers of tokens, separated by blanks, found [a9-]" generate "${model}" "${prompt}" --tokens)
endforeach()
