defmodule Support.Joining do
  @moduledoc """
  Rounds of four nodes that dial each other at once, drawn by a seed: the order of their names, their kinds, who dials whom and after
  how many microseconds. All four have a name of their own, and one that all have.
  """
  import ExUnit.Assertions
  alias Support.{Mesh, OsProcess, Target}

  @doc "The seed of this run, and the random state that it gives: `TIEBEAM_SEED` replays."
  def seed do
    seed = "TIEBEAM_SEED" |> System.get_env("#{System.unique_integer([:positive])}") |> String.to_integer()
    {seed, :rand.seed_s(:exsss, seed)}
  end

  @doc "Runs rounds with nodes of the kinds that `kinds` draws: a function from a random state to four kinds and a random state."
  def rounds(number, kinds) do
    {seed, random} = seed()

    Enum.reduce(1..number, random, fn round, random ->
      {drawn, random} = draw(kinds, random)
      run(drawn, "round #{round} of #{number}, replay with TIEBEAM_SEED=#{seed}: #{inspect(drawn)}")
      random
    end)
  end

  defp draw(kinds, random) do
    {prefixes, random} = shuffle(["a", "k", "s", "z"], random)
    {kinds, random} = kinds.(random)
    # Every node is dialled by, or dials, one before it; and some dial once more.
    {tree, random} =
      Enum.map_reduce(1..3, random, fn at, random ->
        {other, random} = :rand.uniform_s(at, random)
        {coin, random} = :rand.uniform_s(random)
        {if(coin < 0.5, do: {at, other - 1}, else: {other - 1, at}), random}
      end)

    {more, random} =
      Enum.map_reduce(1..4, random, fn _, random ->
        {from, random} = :rand.uniform_s(4, random)
        {away, random} = :rand.uniform_s(3, random)
        {{from - 1, rem(from - 1 + away, 4)}, random}
      end)

    {dials, random} =
      Enum.map_reduce(tree ++ more, random, fn dial, random ->
        {delay, random} = :rand.uniform_s(50_000, random)
        {{dial, delay}, random}
      end)

    {%{nodes: Enum.zip(kinds, prefixes), dials: dials}, random}
  end

  @doc "One of these."
  def one_of(all, random) do
    {at, random} = :rand.uniform_s(length(all), random)
    {Enum.at(all, at - 1), random}
  end

  @doc "These, in any order."
  def shuffle(all, random) do
    {keyed, random} =
      Enum.map_reduce(all, random, fn item, random ->
        {key, random} = :rand.uniform_s(random)
        {{key, item}, random}
      end)

    {keyed |> Enum.sort() |> Enum.map(&elem(&1, 1)), random}
  end

  defp run(%{nodes: nodes, dials: dials}, told) do
    targets = for {kind, prefix} <- nodes, do: Target.start_unready(kind, prefix: prefix)
    Enum.each(targets, &Target.await_ready/1)

    for {target, at} <- Enum.with_index(targets),
        do: {:yes, _} = Target.on(target, :global_register, [{:own, at}])

    # One name that all four have.
    for target <- targets, do: {:yes, _} = Target.on(target, :global_register, [:same])

    tasks =
      for {{from, to}, delay} <- dials do
        Task.async(fn ->
          Process.sleep(div(delay, 1000))
          Mesh.dial(Enum.at(targets, from), Enum.at(targets, to))
        end)
      end

    Task.await_many(tasks, 120_000)

    try do
      Mesh.await_joined(targets, 30_000)
    rescue
      error in ExUnit.AssertionError -> flunk("#{told}\n#{error.message}")
    end

    names = Mesh.names(hd(targets))
    assert names |> Map.keys() |> Enum.sort() == [:same, {:own, 0}, {:own, 1}, {:own, 2}, {:own, 3}], told
    for target <- targets, do: refute(Mesh.warned?(target), "#{told}\n#{target.node} has removed a node")
    for target <- targets, do: OsProcess.kill(target.process)
  end
end
