defmodule Tiebeam.OptionsTest do
  use ExUnit.Case, async: true

  alias Tiebeam.Options

  test "defaults" do
    assert %{name: A, cluster: "default", join: [], process: :tiebeam, metadata: "", evict: false} =
             options = Options.validate!(name: A)

    assert options.profile == :lan
    assert options.timing == Tiebeam.Native.timing(:lan)
  end

  test "a profile decides what was not given" do
    assert %{evict: true, timing: timing} = Options.validate!(name: A, profile: :fast)
    assert timing == Tiebeam.Native.timing(:fast)
    assert %{evict: false} = Options.validate!(name: A, profile: :fast, evict: false)
    assert %{evict: true} = Options.validate!(name: A, evict: true)
  end

  test "the documented values of the profiles are the core's" do
    timings = Enum.map(Options.profiles(), &Tiebeam.Native.timing/1)

    for key <- Map.keys(hd(timings)),
        do: assert({key, Options.documented(key)} == {key, Enum.map(timings, & &1[key])})
  end

  test "given values replace defaults one by one" do
    options = Options.validate!(name: A, join: [:b@h], timing: [greet_max: 5_000])
    assert options.join == [:b@h]
    assert %{greet_first: 1_000, greet_max: 5_000} = options.timing

    assert %{timing: %{gossip_interval: 50, sync_interval: 5}} =
             Options.validate!(name: A, profile: :fast, timing: [sync_interval: 5])
  end

  test "each mistake says which option is wrong and how" do
    cases = [
      {[], "the option :name is required"},
      {[name: nil], "expected the option :name to be an atom, got: nil"},
      {[name: "a"], ~s(expected the option :name to be an atom, got: "a")},
      {[name: A, cluster: :blue], "expected the option :cluster to be a string, got: :blue"},
      {[name: A, join: :b@h], "expected the option :join to be a list of node names, got: :b@h"},
      {[name: A, timing: [greet_max: 0]],
       "expected the option :timing :greet_max to be a positive number of milliseconds, got: 0"},
      {[name: A, timing: 5], "expected :timing options to be a keyword list, got: 5"},
      {[name: A, names: B],
       "unknown or repeated option :names; the options are " <>
         ":name, :cluster, :join, :discovery, :process, :profile, :timing, :metadata, :entries_per_scope, :evict, " <>
         ":voters, :expect, :data_dir, :session_ttl"},
      {[name: A, name: B],
       "unknown or repeated option :name; the options are " <>
         ":name, :cluster, :join, :discovery, :process, :profile, :timing, :metadata, :entries_per_scope, :evict, " <>
         ":voters, :expect, :data_dir, :session_ttl"},
      {[name: A, profile: :slow], "expected the option :profile to be :lan, :fast or :wan, got: :slow"},
      {[name: A, metadata: :x], "expected the option :metadata to be a binary, got: :x"},
      {[name: A, evict: nil], "expected the option :evict to be true or false, got: nil"},
      {[name: A, timing: [gossip_fanout: -1]],
       "expected the option :timing :gossip_fanout to be a number, got: -1"},
      {[name: A, timing: [sync_every: 1]],
       ~r/^unknown or repeated option :timing :sync_every; the options are/},
      {[name: A, voters: :b@h], "expected the option :voters to be a list of node names, got: :b@h"},
      {[name: A, voters: [:b@h], expect: 3],
       "the options :voters and :expect exclude each other: name the voters, or say how many there are"},
      {[name: A, data_dir: :disk], "expected the option :data_dir to be :memory or a path, got: :disk"},
      {[name: A, session_ttl: 10], "the option :session_ttl must be from 500 to 86400000 ms, it is 10"},
      {:a, "expected options to be a keyword list, got: :a"}
    ]

    for {options, message} <- cases do
      assert_raise ArgumentError, message, fn -> Options.validate!(options) end
    end
  end

  test "what only the core can judge is judged by the core" do
    assert_raise ArgumentError, "cluster must have 1 to 255 bytes, it has 0", fn ->
      Options.validate!(name: A, cluster: "")
    end

    assert_raise ArgumentError, ~s(node name "seed" is not of the form name@host), fn ->
      Options.validate!(name: A, join: [:seed])
    end

    assert_raise ArgumentError, "metadata must have at most 512 bytes, it has 513", fn ->
      Options.validate!(name: A, metadata: String.duplicate("x", 513))
    end

    assert_raise ArgumentError, ~r/^probe_timeout must be shorter than probe_interval/, fn ->
      Options.validate!(name: A, timing: [probe_interval: 500])
    end

    assert_raise ArgumentError, "gossip_fanout must be from 1 to 64, it is 65", fn ->
      Options.validate!(name: A, timing: [gossip_fanout: 65])
    end

    assert_raise ArgumentError, ~r/join must name at most 64 nodes, it names 65/, fn ->
      Options.validate!(name: A, join: List.duplicate(:b@h, 65))
    end
  end

  test "every option is documented" do
    docs = Options.docs()

    timing = Map.keys(Tiebeam.Native.timing(:lan))

    for option <-
          ~w(name cluster join process profile timing metadata evict voters expect data_dir session_ttl)a ++
            timing do
      assert docs =~ "- `:#{option}` ("
    end
  end
end
