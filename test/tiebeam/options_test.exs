defmodule Tiebeam.OptionsTest do
  use ExUnit.Case, async: true

  alias Tiebeam.Options

  test "defaults" do
    assert %{name: A, cluster: "default", join: [], process: :tiebeam, timing: timing} =
             Options.validate!(name: A)

    assert timing == %{greet_first: 1_000, greet_max: 30_000, sync_every: 10_000, forget_after: 86_400_000}
  end

  test "given values replace defaults one by one" do
    options = Options.validate!(name: A, join: [:b@h], timing: [greet_max: 5_000])
    assert options.join == [:b@h]
    assert %{greet_first: 1_000, greet_max: 5_000} = options.timing
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
       "unknown or repeated option :names; the options are :name, :cluster, :join, :process, :timing"},
      {[name: A, name: B],
       "unknown or repeated option :name; the options are :name, :cluster, :join, :process, :timing"},
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

    assert_raise ArgumentError, ~r/join must name at most 64 nodes, it names 65/, fn ->
      Options.validate!(name: A, join: List.duplicate(:b@h, 65))
    end
  end

  test "every option is documented" do
    docs = Options.docs()

    for option <- ~w(name cluster join process timing greet_first greet_max sync_every forget_after) do
      assert docs =~ "- `:#{option}` ("
    end
  end
end
