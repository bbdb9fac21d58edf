# The networks against torchvision's. Not registered where LIBTORCH_PYTHON has no torchvision or safetensors.
add_executable(model_peer ${CMAKE_CURRENT_LIST_DIR}/model_peer.cpp)
target_link_libraries(model_peer PRIVATE sage::models sage_options)
target_precompile_headers(model_peer REUSE_FROM sage_pch)
set(peer_found 1)
if(LIBTORCH_PYTHON)
  execute_process(COMMAND ${LIBTORCH_PYTHON} -c "import torchvision, safetensors.torch" RESULT_VARIABLE peer_found
    OUTPUT_QUIET ERROR_QUIET)
endif()
if(peer_found EQUAL 0)
  add_test(NAME models_peer_torchvision
    COMMAND ${LIBTORCH_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/model_peer_test.py $<TARGET_FILE:model_peer>)
  set_tests_properties(models_peer_torchvision PROPERTIES TIMEOUT ${program_timeout})
else()
  message(STATUS "Test models_peer_torchvision: not registered (LIBTORCH_PYTHON has no torchvision or no safetensors)")
endif()
