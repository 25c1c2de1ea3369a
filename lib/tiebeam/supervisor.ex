defmodule Tiebeam.Supervisor do
  @moduledoc false
  # One cluster: the table that callers read, the dials, and the server last, because it needs both.

  use Supervisor

  alias Tiebeam.{Options, Server, Table}

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options) do
    Supervisor.start_link(__MODULE__, options, name: options.name)
  end

  @spec dials(atom) :: atom
  def dials(name), do: Module.concat(name, Dials)

  @impl true
  def init(options) do
    Table.new(options.name, options.process)

    children = [
      {Task.Supervisor, name: dials(options.name)},
      {Server, options}
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end
end
